"""Engine and oracle, two programs that share no line, give the same pieces, costs and totals by `==`."""

from tests.bulk import compare

SESSIONS = 100_000


def test_a_hundred_thousand_random_sessions_agree_with_the_oracle() -> None:
    report = compare(sessions=SESSIONS, seed=2026)
    assert report.sessions >= SESSIONS
    assert not report.disagreements, "\n".join(report.disagreements[:3])
