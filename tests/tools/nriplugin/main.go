// SPDX-License-Identifier: Apache-2.0

// A plugin of the node resource interface for Hull's tests, on the library that users' plugins are made
// with. What it does stands in a JSON file that it reads anew at every call; what it hears of goes into
// another, a line for each call, in the order in which they came.
//
// Pre-installed, it has both paths from its configuration; otherwise from its flags.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/net/multiplex"
	"github.com/containerd/nri/pkg/stub"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protojson"
)

// orders are what a test wants of the plugin.
type orders struct {
	// Adjust is a ContainerAdjustment for every new container.
	Adjust json.RawMessage `json:"adjust"`
	// Update are ContainerUpdates given back at CreateContainer and StopContainer, and at SIGUSR1.
	Update []json.RawMessage `json:"update"`
	// Change is a LinuxResources that every UpdateContainer becomes.
	Change json.RawMessage `json:"change"`
	// Hang, Die and Refuse name the call that is not answered, kills the plugin, or is refused.
	Hang   string `json:"hang"`
	Die    string `json:"die"`
	Refuse string `json:"refuse"`
}

type plugin struct {
	mu   sync.Mutex
	stub stub.Stub
	Log  string `json:"log"`
	Do   string `json:"do"`
}

func (p *plugin) orders() orders {
	var o orders
	if text, err := os.ReadFile(p.Do); err == nil {
		must(json.Unmarshal(text, &o))
	}
	return o
}

// netns is the path of the pod's network namespace, if the message names one.
func netns(pod *api.PodSandbox) string {
	for _, namespace := range pod.GetLinux().GetNamespaces() {
		if namespace.GetType() == "network" {
			return namespace.GetPath()
		}
	}
	return ""
}

// links are the names of the links in the pod's network namespace at the time of the call.
func links(pod *api.PodSandbox) []string {
	path := netns(pod)
	if path == "" {
		return nil
	}
	// Of the process whose namespace the path names.
	text, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(path)), "net/dev"))
	if err != nil {
		return []string{err.Error()}
	}
	var names []string
	for _, line := range strings.Split(string(text), "\n") {
		if name, _, found := strings.Cut(line, ":"); found {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// heard writes a line, then does what is ordered for this call.
func (p *plugin) heard(call string, pod *api.PodSandbox, ctr *api.Container, more any) (orders, error) {
	line, err := json.Marshal(map[string]any{
		"call": call, "pod": pod.GetName(), "pod_id": pod.GetId(), "ips": pod.GetIps(),
		"netns": netns(pod), "links": links(pod),
		"container": ctr.GetName(), "id": ctr.GetId(), "state": ctr.GetState().String(),
		"env": ctr.GetEnv(), "pid": ctr.GetPid(), "exit_code": ctr.GetExitCode(),
		"memory": ctr.GetLinux().GetResources().GetMemory().GetLimit().GetValue(), "more": more,
	})
	must(err)
	p.mu.Lock()
	file, err := os.OpenFile(p.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	must(err)
	_, err = file.Write(append(line, '\n'))
	must(err)
	must(file.Close())
	p.mu.Unlock()

	o := p.orders()
	switch call {
	case o.Hang:
		select {}
	case o.Die:
		os.Exit(3)
	case o.Refuse:
		return o, errors.New("refused as ordered")
	}
	return o, nil
}

func (o orders) updates() []*api.ContainerUpdate {
	var all []*api.ContainerUpdate
	for _, text := range o.Update {
		update := &api.ContainerUpdate{}
		must(protojson.Unmarshal(text, update))
		all = append(all, update)
	}
	return all
}

func (p *plugin) Configure(_ context.Context, config, runtime, version string) (api.EventMask, error) {
	if config != "" {
		must(json.Unmarshal([]byte(config), p))
	}
	_, err := p.heard("Configure", nil, nil, runtime)
	return 0, err
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, ctrs []*api.Container) ([]*api.ContainerUpdate, error) {
	var ids []string
	for _, pod := range pods {
		ids = append(ids, pod.GetId())
	}
	for _, ctr := range ctrs {
		ids = append(ids, ctr.GetId())
	}
	_, err := p.heard("Synchronize", nil, nil, ids)
	return nil, err
}

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	_, err := p.heard("RunPodSandbox", pod, nil, nil)
	return err
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, all *api.LinuxResources) error {
	_, err := p.heard("UpdatePodSandbox", pod, nil, all.GetMemory().GetLimit().GetValue())
	return err
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	_, err := p.heard("PostUpdatePodSandbox", pod, nil, nil)
	return err
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	_, err := p.heard("StopPodSandbox", pod, nil, nil)
	return err
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	_, err := p.heard("RemovePodSandbox", pod, nil, nil)
	return err
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	o, err := p.heard("CreateContainer", pod, ctr, nil)
	adjust := &api.ContainerAdjustment{}
	if len(o.Adjust) > 0 {
		must(protojson.Unmarshal(o.Adjust, adjust))
	}
	return adjust, o.updates(), err
}

func (p *plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container) error {
	_, err := p.heard("PostCreateContainer", pod, ctr, nil)
	return err
}

func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container) error {
	_, err := p.heard("StartContainer", pod, ctr, nil)
	return err
}

func (p *plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container) error {
	_, err := p.heard("PostStartContainer", pod, ctr, nil)
	return err
}

func (p *plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container, wanted *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	o, err := p.heard("UpdateContainer", pod, ctr, wanted.GetMemory().GetLimit().GetValue())
	if len(o.Change) == 0 {
		return nil, err
	}
	resources := &api.LinuxResources{}
	must(protojson.Unmarshal(o.Change, resources))
	return []*api.ContainerUpdate{{ContainerId: ctr.GetId(), Linux: &api.LinuxContainerUpdate{Resources: resources}}}, err
}

func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container) error {
	_, err := p.heard("PostUpdateContainer", pod, ctr, nil)
	return err
}

func (p *plugin) StopContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container) ([]*api.ContainerUpdate, error) {
	o, err := p.heard("StopContainer", pod, ctr, nil)
	return o.updates(), err
}

func (p *plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container) error {
	_, err := p.heard("RemoveContainer", pod, ctr, nil)
	return err
}

// validator has a say in what other plugins do.
type validator struct{ plugin }

func (v *validator) ValidateContainerAdjustment(_ context.Context, req *api.ValidateContainerAdjustmentRequest) error {
	_, err := v.heard("ValidateContainerAdjustment", req.GetPod(), req.GetContainer(), len(req.GetPlugins()))
	return err
}

// asked has the plugin ask for its updates at every SIGUSR1.
func (p *plugin) asked() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	for range signals {
		failed, err := p.stub.UpdateContainers(p.orders().updates())
		_, _ = p.heard("asked", nil, nil, fmt.Sprint(len(failed), " ", err))
	}
}

// evict registers by hand, since the library has no word for evictions, and asks for one.
func evict(socket, id string) {
	conn, err := net.Dial("unix", socket)
	must(err)
	mux := multiplex.Multiplex(conn)
	listener, err := mux.Listen(multiplex.PluginServiceConn)
	must(err)
	server, err := ttrpc.NewServer()
	must(err)
	synced := make(chan struct{})
	api.RegisterPluginService(server, &quiet{synced: synced})
	go func() { _ = server.Serve(context.Background(), listener) }()
	runtime, err := mux.Open(multiplex.RuntimeServiceConn)
	must(err)
	client := api.NewRuntimeClient(ttrpc.NewClient(runtime))
	_, err = client.RegisterPlugin(context.Background(), &api.RegisterPluginRequest{PluginName: "evictor", PluginIdx: "50"})
	must(err)
	<-synced
	_, err = client.UpdateContainers(context.Background(), &api.UpdateContainersRequest{
		Evict: []*api.ContainerEviction{{ContainerId: id, Reason: "a test wants it"}},
	})
	must(err)
}

// quiet hears of an event that hardly ever comes.
type quiet struct {
	api.PluginService
	synced chan struct{}
}

func (q *quiet) Configure(context.Context, *api.ConfigureRequest) (*api.ConfigureResponse, error) {
	return &api.ConfigureResponse{Events: 1 << (api.Event_POST_UPDATE_POD_SANDBOX - 1)}, nil
}

func (q *quiet) Synchronize(_ context.Context, req *api.SynchronizeRequest) (*api.SynchronizeResponse, error) {
	if !req.More {
		close(q.synced)
	}
	return &api.SynchronizeResponse{More: req.More}, nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "nriplugin:", err)
		os.Exit(1)
	}
}

func main() {
	p := &validator{}
	socket := flag.String("socket", "", "where the runtime listens")
	name := flag.String("name", "test", "name to register")
	index := flag.String("index", "10", "index to register")
	validates := flag.Bool("validate", false, "validate adjustments")
	evicted := flag.String("evict", "", "container to evict, instead of all else")
	flag.StringVar(&p.Log, "log", "", "where calls are written")
	flag.StringVar(&p.Do, "do", "", "where orders are")
	flag.Parse()

	if *evicted != "" {
		evict(*socket, *evicted)
		return
	}
	var options []stub.Option
	if *socket != "" {
		options = append(options, stub.WithSocketPath(*socket), stub.WithPluginName(*name), stub.WithPluginIdx(*index))
	}
	var impl any = &p.plugin
	if *validates {
		impl = p
	}
	made, err := stub.New(impl, options...)
	must(err)
	p.stub = made
	go p.asked()
	must(made.Run(context.Background()))
}
