"""The tests of what surrounds the service: make, the image, compose, Prometheus, Grafana."""
