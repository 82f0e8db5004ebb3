// A Mercure hub, built from its library as its documentation shows: its server is a module of Caddy. Tokens of publishers are verified,
// and anyone may subscribe. Messages are kept in memory, or in a Bolt database, which is durable, if MERCURE_DATABASE names its file.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/dunglas/mercure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	hub, err := mercure.NewHub(
		ctx,
		mercure.WithAnonymous(),
		mercure.WithPublisherJWT([]byte(os.Getenv("MERCURE_SECRET")), "HS256"),
		mercure.WithTransport(transport(logger)),
		mercure.WithLogger(logger),
	)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/mercure", hub)
	server := &http.Server{Handler: mux}
	go func() {
		<-ctx.Done()
		hub.Stop(context.Background())
		server.Close()
	}()
	fmt.Printf("listening on http://%s\n", listener.Addr())
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}

func transport(logger *slog.Logger) mercure.Transport {
	subscribers := mercure.NewSubscriberList(mercure.DefaultSubscriberListCacheSize)
	path := os.Getenv("MERCURE_DATABASE")
	if path == "" {
		return mercure.NewLocalTransport(subscribers)
	}
	transport, err := mercure.NewBoltTransport(subscribers, logger, path, "", 0, mercure.BoltDefaultCleanupFrequency)
	if err != nil {
		log.Fatal(err)
	}
	return transport
}
