"""Telemetry: numbers for Prometheus and lines for the log.

Comes in: plain values, from the observers that `service.inference` and `service.memory` define as
protocols and that `Metrics` implements, and from `service.api`.
Goes out: the text of `/metrics`, lines on stderr. Owner: the app; one `Metrics` for each app.
A leaf: it must never import `service.api`, `service.inference`, `service.memory` or
`service.bundle`.
"""
