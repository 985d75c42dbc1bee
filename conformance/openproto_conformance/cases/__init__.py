"""Every case, by area, in the order in which they run."""

from openproto_conformance.case import Case
from openproto_conformance.cases import (
    audit,
    basics,
    cancellation,
    capabilities,
    concurrency,
    context,
    errors,
    every_verb,
    fidelity,
    filters,
    histories,
    idempotency,
    ingestion,
    isolation,
    lifecycle,
    paging,
    search,
    storm,
    supersession,
    time,
)

AREAS = (
    basics.area,
    capabilities.area,
    fidelity.area,
    histories.area,
    filters.area,
    paging.area,
    search.area,
    context.area,
    time.area,
    supersession.area,
    idempotency.area,
    isolation.area,
    errors.area,
    every_verb.area,
    audit.area,
    ingestion.area,
    lifecycle.area,
    concurrency.area,
    cancellation.area,
    storm.area,
)
CASES: tuple[Case, ...] = tuple(case for area in AREAS for case in area.cases)

if len({case.name for case in CASES}) < len(CASES):
    raise TypeError("two cases have one name")
