// SPDX-License-Identifier: Apache-2.0

// Command grpcclient connects to a CRI socket in every way that programs in Go do, and prints a line for each:
//
//	grpcclient SOCKET
//
// A line is the name of the way, and `ok` or the error. Each connection carries several calls, one of them a stream,
// so that what the client has in its header table is used. It decides nothing: tests call it, and judge.
package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A way to connect.
type way struct {
	name    string
	connect func(path string, options ...grpc.DialOption) (*grpc.ClientConn, error)
}

func newClient(target string, more ...grpc.DialOption) func(string, ...grpc.DialOption) (*grpc.ClientConn, error) {
	return func(path string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
		return grpc.NewClient(target+path, append(options, more...)...)
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "grpcclient: say which socket")
		os.Exit(2)
	}
	path := os.Args[1]
	dialer := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	})
	ways := []way{
		{"unix:PATH", newClient("unix:")},
		{"unix://PATH", newClient("unix://")},
		{"passthrough:///PATH with a dialer", newClient("passthrough:///", dialer)},
		{"passthrough:///unix://PATH with a dialer", newClient("passthrough:///unix://", dialer)},
		{"passthrough://PATH with a dialer", newClient("passthrough://", dialer)},
		{"Dial(PATH) with a dialer", func(path string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
			return grpc.Dial(path, append(options, dialer)...)
		}},
		{"Dial(unix://PATH) with a dialer", func(path string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
			return grpc.Dial("unix://"+path, append(options, dialer)...)
		}},
		// The dialer knows the path: there is nothing to name, and the authority is empty.
		{"Dial of nothing with a dialer", func(_ string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
			return grpc.Dial("", append(options, dialer)...)
		}},
		{"passthrough:/// with a dialer", func(_ string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///", append(options, dialer)...)
		}},
		// As older releases, and those in other languages, have it.
		{"authority PATH", newClient("unix://", grpc.WithAuthority(path))},
		{"authority unix:PATH", newClient("unix://", grpc.WithAuthority("unix:"+path))},
		{"authority escaped", newClient("unix://", grpc.WithAuthority(url.PathEscape(path)))},
		{"authority of several colons", newClient("unix://", grpc.WithAuthority("a:b:c d/%"))},
		{"authority localhost", newClient("unix://", grpc.WithAuthority("localhost"))},
	}
	for _, way := range ways {
		if err := call(way, path); err != nil {
			fmt.Printf("%s: %v\n", way.name, err)
		} else {
			fmt.Printf("%s: ok\n", way.name)
		}
	}
}

func call(way way, path string) error {
	connection, err := way.connect(path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client := runtime.NewRuntimeServiceClient(connection)
	for round := range 5 {
		with := metadata.AppendToOutgoingContext(ctx, "x-round", fmt.Sprint(round), "x-same", "yes")
		if _, err := client.Version(with, &runtime.VersionRequest{}); err != nil {
			return fmt.Errorf("Version: %w", err)
		}
		if _, err := client.ListContainers(with, &runtime.ListContainersRequest{}); err != nil {
			return fmt.Errorf("ListContainers: %w", err)
		}
	}
	watched, stop := context.WithCancel(ctx)
	defer stop()
	events, err := client.GetContainerEvents(watched, &runtime.GetEventsRequest{})
	if err != nil {
		return fmt.Errorf("GetContainerEvents: %w", err)
	}
	if _, err := events.Header(); err != nil {
		return fmt.Errorf("GetContainerEvents: %w", err)
	}
	return nil
}
