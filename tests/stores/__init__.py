"""Object stores on this machine, and a proxy that disturbs what goes to them."""
