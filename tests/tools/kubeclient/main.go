// SPDX-License-Identifier: Apache-2.0

// Command kubeclient does with a streaming URL what kubectl does, by the library that kubectl is made of:
//
//	kubeclient [-transport T] [-protocol P] [-i] [-t] [-size WxH] exec|attach URL
//	kubeclient [-transport T] forward URL LOCAL:REMOTE
//
// It exits with the code of the command. It decides nothing: tests call it, and judge.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// Distinct from what a command in a test exits with.
const failed = 99

var (
	transport = flag.String("transport", "fallback", "websocket, spdy, or fallback: the second when the first is refused")
	protocol  = flag.String("protocol", "", "the only protocol offered, instead of all that the library has")
	stdin     = flag.Bool("i", false, "send standard input")
	tty       = flag.Bool("t", false, "ask for a terminal")
	size      = flag.String("size", "", "WxH, sent once the output has said `ready`")
)

func main() {
	flag.Parse()
	err := run(flag.Args())
	var exit exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.Exited():
		os.Exit(exit.ExitStatus())
	default:
		fmt.Fprintln(os.Stderr, "kubeclient:", err)
		os.Exit(failed)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("say exec, attach or forward, and a URL")
	}
	at, err := url.Parse(args[1])
	if err != nil {
		return err
	}
	config := &restclient.Config{Host: at.Host}
	if args[0] == "forward" {
		return forward(config, at, args[2:])
	}
	return stream(config, at)
}

func refused(err error) bool { return httpstream.IsUpgradeFailure(err) }

func stream(config *restclient.Config, at *url.URL) error {
	executor, err := executor(config, at)
	if err != nil {
		return err
	}
	out := &watched{to: os.Stdout, ready: make(chan struct{})}
	options := remotecommand.StreamOptions{Stdout: out, Tty: *tty}
	if *stdin {
		options.Stdin = os.Stdin
	}
	if !*tty {
		options.Stderr = os.Stderr
	}
	if *size != "" {
		options.TerminalSizeQueue = &sizes{after: out.ready}
	}
	return executor.StreamWithContext(context.Background(), options)
}

func executor(config *restclient.Config, at *url.URL) (remotecommand.Executor, error) {
	newer, err := remotecommand.NewWebSocketExecutor(config, http.MethodGet, at.String())
	if *protocol != "" {
		newer, err = remotecommand.NewWebSocketExecutorForProtocols(config, http.MethodGet, at.String(), *protocol)
	}
	if err != nil || *transport == "websocket" {
		return newer, err
	}
	older, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, at)
	if *protocol != "" && *transport == "spdy" {
		through, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutorForProtocols(through, upgrader, http.MethodPost, at, *protocol)
	}
	if err != nil || *transport == "spdy" {
		return older, err
	}
	return remotecommand.NewFallbackExecutor(newer, older, refused)
}

func forward(config *restclient.Config, at *url.URL, ports []string) error {
	through, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return err
	}
	older := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: through}, http.MethodPost, at)
	newer, err := portforward.NewSPDYOverWebsocketDialerForStreaming(at, config)
	if err != nil {
		return err
	}
	var dialer httpstream.Dialer
	switch *transport {
	case "websocket":
		dialer = newer
	case "spdy":
		dialer = older
	default:
		dialer = portforward.NewFallbackDialerForStreaming(newer, older, refused)
	}
	forwarder, err := portforward.NewForStreaming(dialer, ports, nil, make(chan struct{}), os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	return forwarder.ForwardPorts()
}

// watched closes ready once the output has said so.
type watched struct {
	to    io.Writer
	said  bytes.Buffer
	ready chan struct{}
	done  bool
}

func (w *watched) Write(p []byte) (int, error) {
	if !w.done && *size != "" {
		w.said.Write(p)
		if strings.Contains(w.said.String(), "ready") {
			w.done = true
			close(w.ready)
		}
	}
	return w.to.Write(p)
}

// sizes gives one size, and then none for as long as the session lasts.
type sizes struct {
	after <-chan struct{}
	given bool
}

func (s *sizes) Next() *remotecommand.TerminalSize {
	if s.given {
		select {}
	}
	<-s.after
	s.given = true
	var found remotecommand.TerminalSize
	if _, err := fmt.Sscanf(*size, "%dx%d", &found.Width, &found.Height); err != nil {
		return nil
	}
	return &found
}
