"""Shows that what is said of wasmtime's advisories is so: versions, tests, what doctor reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wasi_kernel import advisories, doctor
from wasi_kernel.advisories import ADVISORIES, Advisory

TESTS = Path(__file__).parent
X86, ARM = "x86_64", "aarch64"


def by(ident: str) -> Advisory:
    return next(a for a in ADVISORIES if a.ident == ident)


def test_each_is_listed_once_and_fully():
    assert len({a.ident for a in ADVISORIES}) == len(ADVISORIES)
    for a in ADVISORIES:
        assert re.fullmatch(r"GHSA(-[23456789cfghjmpqrvwx]{4}){3}|CVE-\d{4}-\d+", a.ident)
        assert re.fullmatch(r"\d+\.\d+\.\d+", a.fixed)
        assert a.title
        assert a.why


@pytest.mark.parametrize("advisory", [a for a in ADVISORIES if a.state == "closed"], ids=str)
def test_what_is_closed_has_a_test(advisory: Advisory):
    file, _, name = advisory.shown_by.partition("::")
    assert f"def {name}(" in (TESTS / file).read_text()


def test_only_what_is_closed_names_a_test():
    assert all(bool(a.shown_by) == (a.state == "closed") for a in ADVISORIES)


@pytest.mark.parametrize(
    ("ident", "affected", "free"),
    [
        ("GHSA-96f6-r43r-8c24", ["48.0.0", "49.0.0", "49.0.1"], ["49.0.2", "49.0.10", "50.0.0"]),
        ("GHSA-43j2-gcp4-m22g", ["49.0.0", "49.0.5", "50.0.0", "50.0.1"], ["49.0.6", "50.0.2"]),
        ("GHSA-hmmr-87qq-258j", ["49.0.4", "50.0.0"], ["49.0.5", "50.0.1", "51.0.0"]),
        ("GHSA-f2pq-268w-886c", ["49.0.0", "50.0.2"], ["50.0.3", "51.0.0"]),
    ],
)
def test_versions(ident: str, affected: list[str], free: list[str]):
    assert all(advisories.affects(by(ident), v, X86) for v in affected)
    assert not any(advisories.affects(by(ident), v, X86) for v in free)


def test_some_are_about_one_machine_only():
    ident = "GHSA-mghf-wjfp-p5xm"
    assert advisories.affects(by(ident), "49.0.0", ARM)
    assert not advisories.affects(by(ident), "49.0.0", X86)
    assert not advisories.affects(by(ident), "49.0.4", ARM)


def test_doctor_names_the_open_ones():
    first, *others = doctor.advisories_of("49.0.0", X86)
    assert first.state == "note"
    assert f"{len(ADVISORIES) - 1} known" in first.detail
    assert {f.what for f in others} == {"GHSA-hw8m-q44c-ggrf", "GHSA-43j2-gcp4-m22g"}
    for f in others:
        assert f.state == "note"
        assert by(f.what).title in f.detail
        assert f"fixed in wasmtime {by(f.what).fixed}" in f.advice
    assert "GHSA-mghf-wjfp-p5xm" in {f.what for f in doctor.advisories_of("49.0.0", ARM)}


def test_doctor_is_content_with_a_version_without_open_ones():
    for version, count in (("50.0.3", 0), ("49.0.6", 1)):
        found = list(doctor.advisories_of(version, ARM))
        assert [f.state for f in found] == ["ok"]
        assert f"{count} known" in found[0].detail
