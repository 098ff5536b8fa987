// Holds the namespaces of a pod: waits until it is stopped.
package main

import (
	"context"
	"os/signal"
	"syscall"
)

func main() {
	stopped, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	<-stopped.Done()
}
