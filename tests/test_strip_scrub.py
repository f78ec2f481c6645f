"""scrub: what is personal data, and what only looks like it. All addresses and numbers are made up or reserved."""

from __future__ import annotations

import pytest

from prosemill.config.settings import Strip
from prosemill.strip.scrub import scrub

PERSONAL = [
    ("Write to master@harbour.example.com, please.", "Write to [e-mail], please."),
    ("Write to first.last+news@mail.harbour-city.example.", "Write to [e-mail]."),
    ("Mail: keeper [at] harbour [dot] example (no spam)", "Mail: [e-mail] (no spam)"),
    ("请写信到guan.li@gangkou.example.cn，谢谢", "请写信到[e-mail]，谢谢"),
    ("Call +49 30 1234567 after six.", "Call [phone] after six."),
    ("Call +44 (0)20 7946 0018.", "Call [phone]."),
    ("Call +1-202-555-0143 or +12025550143!", "Call [phone] or [phone]!"),
    (
        "Call (202) 555-0143, 202-555-0143, 202.555.0143 or 1-202-555-0143.",
        "Call [phone], [phone], [phone] or [phone].",
    ),
    ("Dial 0049 30 1234567 from abroad", "Dial [phone] from abroad"),
    ("手机13912345678，座机010-12345678或(0755)1234567。", "手机[phone]，座机[phone]或[phone]。"),
    ("电话：+86 139 1234 5678 转 8", "电话：[phone] 转 8"),
    ("拨打139-1234-5678或0571-87654321-801", "拨打[phone]或[phone]"),
    ("The server 192.168.17.3 answered 203.0.113.77:8080.", "The server [ip] answered [ip]:8080."),
    ("Its IP address is 8.8.4.4, he said.", "Its IP address is [ip], he said."),
    ("服务器地址：203.0.113.9。", "服务器地址：[ip]。"),
    ("From 2001:db8::8a2e:370:7334 to fe80::1.", "From [ip] to [ip]."),
    ("Card 4111 1111 1111 1111 or 5500-0000-0000-0004", "Card [id] or [id]"),
    ("Card 378282246310005.", "Card [id]."),
    ("SSN 219-09-9999, born 1950", "SSN [id], born 1950"),
    ("身份证号11010519491231002X。", "身份证号[id]。"),
]

HARMLESS = [
    "In 1984, 2001 and 2024-11-21 the pier was painted; 21.11.2024 was the last time.",
    "From 1914-1918 and 1939–1945 the lamp was dark. On 2024/11/21 at 12:34:56 it was lit.",
    "It cost 1,234,567 pounds, $1 500 000, €12.345.678,00, 1.234.567,89 or 3.14159265358979.",
    "A rise of +150 000 000 people, +1,234,567 or +12.5 %.",
    "ISBN 978-3-16-148410-0, ISBN 9783161484100, ISBN-10 3-16-148410-X, ISSN 2049-3630.",
    "Version 1.2.3, v2.0.0.1, release 4.18.0.305, Section 3.2.1.4 and RFC 2616 section 14.9.3.1.",
    "See 3.2.1.4 for the tides. Chrome 91.0.4472.124 runs there.",
    "Paragraph 12-34-56, order 2023-0456-789, track 1234-5678 and room 202-555.",
    "std::vector, dead::beef, ::, a::b::c, 12:30, 10:15:30, Genesis 1:2:3.",
    "DOI 10.1000/182, arXiv:2101.00001, 10.1038/s41586-020-2649-2",
    "The photo is pier@2x.png, the user is @keeper, the price is 3@5.",
    "Milliseconds: 1700000000000; serial 1234567890123456; population 1400000000; 15000000000 grains.",
    "Coordinates 54.3233, 10.1228; 40°26′46″N; chapter 10.3-10.5; 1 000 000 000 000 grains of sand.",
    "身份证号110105194912310021不对，2024年11月21日，12345678人，共1234567.89元，邮编100101。",
    "一共有13800个，价格是￥12345678901，编号0571。",
    "UUID 123e4567-e89b-12d3-a456-426614174000, MAC 00:1A:2B:3C:4D:5E, SHA 4111111111111111aa.",
    "ZIP 20001-1234, tel. 112, 1-800, flight 4U-9525, 100-200-300 steps.",
]


@pytest.mark.parametrize(("text", "expected"), PERSONAL)
def test_personal_data_is_replaced_and_counted(text: str, expected: str) -> None:
    replaced, count = scrub(text, Strip())
    assert replaced == expected
    assert count == expected.count("[")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert scrub(text, Strip()) == (text, 0)


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ("scrub_email", "a.b@harbour.example"),
        ("scrub_phone", "+49 30 1234567"),
        ("scrub_ip", "203.0.113.77"),
        ("scrub_id_numbers", "4111 1111 1111 1111"),
    ],
)
def test_each_kind_can_be_kept(setting: str, kept: str) -> None:
    text = f"One of these: {kept}."
    assert scrub(text, Strip())[1] == 1
    assert scrub(text, Strip(**{setting: False})) == (text, 0)  # type: ignore[arg-type]
