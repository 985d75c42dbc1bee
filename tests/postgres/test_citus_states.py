"""What a Citus cluster may be found in, without one; tests/citus wants a real one."""

from __future__ import annotations

import pytest
from openproto_adapters.postgres.citus.cluster import Cluster
from openproto_adapters.postgres.row_security import EVERYBODY, acting_for, users_of
from openproto_adapters.postgres.schema import schema_script

from openproto import ProviderError

ALL = frozenset({"memories", "keys", "audit", "store"})


def test_a_cluster_that_cannot_be_used_is_refused_with_what_to_do() -> None:
    for cluster, said in (
        (Cluster("11.3-1", "o", frozenset(), False), "Citus 11.3-1, .* Citus 12 or newer: install it on every server"),
        (Cluster("15.0-1", "o", ALL - {"keys"}, True), "'o' are half distributed: keys is missing .* --distribute`"),
        (Cluster("15.0-1", "o", ALL, False), r"half distributed: run\(\) is missing"),
    ):
        with pytest.raises(ProviderError, match=said):
            cluster.check()
    local = Cluster("15.0-1", "o", frozenset(), False)  # tables on one server are used like any others
    local.check()
    assert local.settings(10.0) == {}
    assert "--distribute" in str(local)
    assert Cluster("15.0-1", "o", ALL, True).settings(2.5)["citus.node_connection_timeout"] == "2500ms"


def test_only_a_script_that_distributes_has_citus_in_it() -> None:
    assert "create_distributed_table" in schema_script("o", distribute=True)
    assert "FORCE ROW LEVEL" not in schema_script("o", distribute=True).replace("NO FORCE", "")
    assert "citus" not in schema_script("o").lower()


def test_whom_a_statement_acts_for_is_read_back() -> None:
    users = ["ada", 'e"v\\e', "*", "{}", "NULL", "ünï, {x}", " ", "\\", '"', ",", "a\nb", "\u2028"]
    for some in ([], *([user] for user in users), users):
        assert users_of(acting_for(*some)) == some
    assert users_of(EVERYBODY) == []
