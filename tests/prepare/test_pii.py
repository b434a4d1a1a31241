import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.prepare.pii import iban, luhn, personal, secrets

# The IBANs and card numbers are the published examples of their standards and issuers.
FOUND = [
    ("DE89 3704 0044 0532 0130 00", "iban"),
    ("pay to GB82 WEST 1234 5698 7654 32 AT once", "iban"),
    ("NL91ABNA0417164300.", "iban"),
    ("4111 1111 1111 1111", "card"),
    ("card 378282246310005 expires", "card"),
    ("at 8.8.8.8 now", "ip"),
    ("2001:4860:4860::8888", "ip"),
    ("call +49 30 901820-00", "phone"),
    ("call (212) 736-5000", "phone"),
    ("212-736-5000", "phone"),
    ("a.b+c@mail.firm.co.uk", "email"),
]
CLEAN = [
    "DE88 3704 0044 0532 0130 00",  # one digit wrong
    "4111 1111 1111 1112",  # the check digit is wrong
    "0000 0000 0000 0000",
    "192.168.1.1 and 127.0.0.1 and 192.0.2.7",  # private, loopback, documentation
    "300.1.1.1",
    "version 1.2.3",
    "2024-11-21 12:30:05",
    "12:30:05 and 10:20",
    "1,234,567.89",
    "555-0123 or 212-555-0123",
    "100 200 300 400",
    "3.14159265358979",
    "me@example.com",
    "@handle, a@b",
    "ISBN 978-3-16-148410-0",
]


@pytest.mark.parametrize(("text", "kind"), FOUND)
def test_what_names_a_person_is_found_by_kind(text: str, kind: str) -> None:
    assert [name for name, _ in personal(text)] == [kind]


@pytest.mark.parametrize("text", CLEAN)
def test_numbers_that_fail_their_check_are_not(text: str) -> None:
    assert list(personal(text)) == []


def test_a_report_never_repeats_more_than_four_characters() -> None:
    key = "sk-" + "Zx9" * 8
    assert list(secrets(f"key: {key}")) == [("secret", "sk-Z...")]
    assert all(len(start) <= 7 for text, _ in FOUND for _, start in personal(text))


@pytest.mark.parametrize(
    "text", ["sk-" + "a" * 30, "eyJhbGciOi.notjsonatall.signature1", "-----BEGIN CERTIFICATE-----"]
)
def test_what_has_only_the_look_of_a_secret_is_none(text: str) -> None:
    assert list(secrets(text)) == []


def test_a_private_key_is_a_secret() -> None:
    assert [kind for kind, _ in secrets("-----BEGIN RSA " + "PRIVATE KEY-----")] == ["secret"]


@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_one_last_digit_of_ten_passes_luhn(digits: str) -> None:
    assert sum(luhn(digits + str(last)) for last in range(10)) == 1


@given(st.text(alphabet="0123456789", min_size=14, max_size=14), st.integers(1, 9), st.integers(4, 17))
def test_an_iban_with_one_digit_changed_fails(account: str, by: int, where: int) -> None:
    for check in range(2, 99):
        made = f"DE{check:02d}{account}"
        if iban(made):
            changed = made[:where] + str((int(made[where]) + by) % 10) + made[where + 1 :]
            assert not iban(changed)
            return
    pytest.fail("one of the check digits 02 to 98 must fit")


@given(st.text())
def test_no_text_breaks_the_search(text: str) -> None:
    list(personal(text))
    list(secrets(text))
