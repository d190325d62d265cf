from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from deploy.clickhouse.grants import GRANTS, Role, Store, grants_of, role_name, roles_of, sql, users_xml

DIGESTS = {role: f"{number:064x}" for number, role in enumerate(Role)}


@pytest.mark.parametrize("store", list(Store))
def test_sql_and_users_xml_say_the_same(store: Store) -> None:
    statements = "\n".join(sql(store, DIGESTS))
    tree = ET.fromstring(users_xml(store, DIGESTS))
    assert [user.tag for user in tree.find("users") or ()] == [str(role) for role in roles_of(store)]
    for role in roles_of(store):
        granted = [query.text or "" for query in tree.iterfind(f"roles/{role_name(role)}/grants/query")]
        assert len(granted) == len(grants_of(store, role)) > 0
        joined = ", ".join(text.removeprefix("GRANT ") for text in granted)
        assert f"GRANT {joined} TO {role_name(role)} WITH REPLACE OPTION" in statements
        assert f"ALTER USER {role} IDENTIFIED WITH sha256_hash BY '{DIGESTS[role]}'" in statements


def test_only_the_inner_login_has_no_password_and_it_holds_roles_only() -> None:
    tree = ET.fromstring(users_xml(Store.ANALYTICS, DIGESTS, inner=True))
    without = [user for user in tree.find("users") or () if not user.findtext("password_sha256_hex")]
    assert [user.tag for user in without] == ["default"]
    held = {query.text for query in without[0].iterfind("grants/query")}
    assert held == {f"GRANT {role_name(role)}" for role in roles_of(Store.ANALYTICS)}


def test_no_login_but_the_workers_and_the_rights_commands_reads_a_row_about_a_person_in_both_stores() -> None:
    def reads(role: Role, store: Store) -> bool:
        people = {"recipients", "consents"} if store is Store.IDENTITY else {"engagement", "seen"}
        return any(g.privilege == "SELECT" and g.table in (*people, "*") for g in grants_of(store, role))

    assert {role for role in Role if all(reads(role, store) for store in Store)} == {Role.WORKER, Role.RIGHTS}
    sealed = [g for g in GRANTS if g.privilege == "SELECT" and g.table == "recipients"]
    assert {g.role for g in sealed if not g.columns or "sealed" in g.columns} == {Role.RIGHTS}


def test_a_digest_that_is_none_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="SHA-256 of the password of worker") as refused:
        users_xml(Store.IDENTITY, {**DIGESTS, Role.WORKER: "hunter2"})
    assert "hunter2" not in str(refused.value)
