"""Telemetry: numbers for Prometheus and lines for the log.

Comes in: plain values, from the observers that `inference` and `memory` define as
protocols and that `Metrics` implements, and from `api`.
Goes out: the text of `/metrics`, lines on stderr. Owner: the app; one `Metrics` for each app.
A leaf: it must never import `api`, `inference`, `memory` or
`bundle`.
"""
