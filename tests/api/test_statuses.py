"""The table of statuses is complete, and holds nothing that no error has."""

from collections.abc import Iterator
from http import HTTPStatus

import resmem_service.api.errors  # the errors that only HTTP has
from resmem_service.api.routes import EVERYWHERE, REASONS, ROUTES
from resmem_service.api.statuses import INTERNAL, STATUSES, status_of
from resmem_service.errors import CorruptFile, JournalLocked, ResmemError

OPERATOR = {
    "bundle_error",
    "corrupt_file",
    "invalid_settings",
    "load_failed",
    "provider_unavailable",
    "unsafe_library",
}
"""Errors of commands and of the start; a client that meets one gets `internal`."""


def below(error: type[ResmemError]) -> Iterator[type[ResmemError]]:
    for child in error.__subclasses__():
        if child.__module__.startswith("resmem_service."):
            yield child
            yield from below(child)


def test_every_error_is_in_the_table_or_is_the_operators() -> None:
    assert resmem_service.api.errors.RouteNotFound in below(ResmemError)
    assert {error.code for error in below(ResmemError)} == STATUSES.keys() | OPERATOR
    assert not STATUSES.keys() & OPERATOR


def test_every_status_is_one_of_http_that_says_no() -> None:
    assert all(HTTPStatus(status) >= 400 and status != 500 for status in STATUSES.values())


def test_a_subclass_has_the_status_of_its_code_and_others_are_internal() -> None:
    assert status_of(JournalLocked("locked")) == 507
    assert status_of(CorruptFile("damaged")) == 500


def test_metrics_expect_every_code() -> None:
    assert (*STATUSES, INTERNAL) == REASONS


def test_every_status_of_a_route_is_in_the_table() -> None:
    declared = {status for route in ROUTES for status in route.errors} | {*EVERYWHERE}
    assert declared <= {*STATUSES.values(), 500}
