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


# The language of the text, the text, what becomes of it.
OF_A_LANGUAGE = [
    ("de", "Tel. 030 1234567 oder 0171 2345678", "Tel. [phone] oder [phone]"),
    ("de", "Rufen Sie 030/1234567 an.", "Rufen Sie [phone] an."),
    ("de", "Handy: 01512 3456789", "Handy: [phone]"),
    ("de", "Fax (0 30) 12 34 56-78", "Fax [phone]"),
    ("en", "Ring 020 7946 0018 after six.", "Ring [phone] after six."),
    ("en", "Ring 07911 123456.", "Ring [phone]."),
    ("en", "Phone: 555-0143", "Phone: [phone]"),
    ("en", "Tel.: 2345 6789", "Tel.: [phone]"),
    ("en", "Tel 212.555.0187 x204", "Tel [phone]"),
    ("en", "call (0131) 496 0123", "call [phone]"),
    ("en", "call 98765 43210 in Delhi", "call [phone] in Delhi"),
    ("fr", "Appelez le 06 12 34 56 78.", "Appelez le [phone]."),
    ("fr", "Tél. : 01.23.45.67.89", "Tél. : [phone]"),
    ("ja", "電話：03-1234-5678まで", "電話：[phone]まで"),
    ("ja", "090-1234-5678にどうぞ", "[phone]にどうぞ"),
    ("ja", "電話番号は0312345678です", "電話番号は[phone]です"),
    ("ko", "전화: 02-123-4567", "전화: [phone]"),
    ("ko", "010-1234-5678로 연락", "[phone]로 연락"),
    ("ru", "тел. 8 (495) 123-45-67", "тел. [phone]"),
    ("ru", "тел.: 123-45-67", "тел.: [phone]"),
    ("ru", "Звоните 8 912 345-67-89.", "Звоните [phone]."),
    ("zh", "電話 02-2345-6789", "電話 [phone]"),
    ("zh", "手機0912-345-678", "手機[phone]"),
    ("zh", "电话：0755-1234567", "电话：[phone]"),
    ("zh", "电话: 87654321", "电话: [phone]"),
    ("es", "Llame al 612 345 678.", "Llame al [phone]."),
    ("es", "Teléfono: 91 123 45 67", "Teléfono: [phone]"),
    ("it", "Chiamate lo 06 12345678", "Chiamate lo [phone]"),
    ("pt", "Ligue (11) 91234-5678", "Ligue [phone]"),
    ("sv", "Ring 08-123 456 78", "Ring [phone]"),
    ("tr", "Tel: 0532 123 45 67", "Tel: [phone]"),
    ("en", "+1 (202) 555-0143 and +81 3-1234-5678", "[phone] and [phone]"),
    ("en", "WhatsApp +5511912345678", "WhatsApp [phone]"),
    ("en", "Two: 202-555-0143 202-555-0187", "Two: [phone] [phone]"),
    ("en", "IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFFXXX", "IBAN [id] BIC COBADEFFXXX"),
    ("en", "GB29NWBK60161331926819.", "[id]."),
    ("fr", "IBAN : FR14 2004 1010 0505 0001 3M02 606", "IBAN : [id]"),
    ("en", "NL91ABNA0417164300 is mine", "[id] is mine"),
    ("de", "müller@bücher.example schrieb", "[e-mail] schrieb"),
    ("ru", "Пишите на иван@почта.рф.", "Пишите на [e-mail]."),
    ("zh", "邮箱 用户@例子.公司。", "邮箱 [e-mail]。"),
    ("en", "info@xn--bcher-kva.example", "[e-mail]"),
    ("ja", "連絡先はtanaka@example.jpです", "連絡先は[e-mail]です"),
    ("zh", "邮箱：li@a.cn谢谢", "邮箱：[e-mail]谢谢"),
    ("hi", "ईमेल raj@example.in पर", "ईमेल [e-mail] पर"),
    ("en", "(mail: o'brien@a.example)", "(mail: [e-mail])"),
    ("it", "RSSMRA85T10A562S", "[id]"),
    ("pt", "CPF 390.533.447-05", "CPF [id]"),
    ("es", "DNI 12345678Z", "DNI [id]"),
    ("fr", "N° 1 85 05 78 006 084 91", "N° [id]"),
    ("en", "Ping 8.8.8.8:53 or 10.0.0.0/8", "Ping [ip]:53 or [ip]/8"),
    ("en", "from 203.0.113.7 came", "from [ip] came"),
    ("en", "visitor 198.51.100.23 came", "visitor [ip] came"),
    ("en", "NHS number 943 476 5919", "NHS number [id]"),
    ("en", "Amex 3782 822463 10005", "Amex [id]"),
]
HARMLESS_IN_A_LANGUAGE = [
    ("en", "Loopback 127.0.0.1 and mask 255.255.255.0, also 0.0.0.0 and ::1."),
    ("en", "Chrome 91.0.44.124, nginx/1.25.3.101, jdk-8.0.292.10, Firmware 10.55.48.2"),
    ("en", "git clone git@github.com:user/repo.git or ssh://git@host.example/repo"),
    ("en", "Part 555-123-4567, P/N 202-555-0143, model 212-34-5678, SKU 4567-8901-2345"),
    ("en", "The bill passed 219-212 with 2,025,550,143 votes; 202 555 0143 votes"),
    ("en", "Vote: 301-555-0143."),
    ("en", "In 1984 1985 1986 1987 it rained; 2019/2020; 10.10.2010; 01.02.2024 03:04"),
    ("de", "Am 01.02.2024 um 10.30 Uhr kamen 12.345.678 Leute, 0,5 % mehr; 2023-2024."),
    ("de", "ISBN 0-306-40615-2, PLZ 10115, Kto 12345678, HRB 12345"),
    ("fr", "Entre 1914 et 1918, 12 345 678 habitants; 3 500 000 euros; 01 02 03"),
    ("es", "612 345 habitantes en 2001, 1 234 567 en 2011"),
    ("ja", "2024年11月21日、12345678人、1234-5678、第3.2.1.4節"),
    ("zh", "2023年，12345678元，订单号202305551234，版本2.10.44.1，邮编100101"),
    ("ko", "2024년 11월 21일 12345678원"),
    ("ru", "В 1941-1945 годах 12 345 678 человек, 8 марта 1999"),
    ("en", "Tel. 112, phone in 1984-1985, tel: 911"),
    ("en", "Order 12345678Z of part no. 98765 43210"),
    ("en", "0.123456789, 1e-10, 0123456789abcdef, 0x1234567890"),
    ("en", "lines 100-200 300-400, pages 1234-1245, 12-24-36-48"),
    ("en", "@keeper wrote to @baker; price@night, 5 @ 3.50, a@b"),
    ("en", "react@18.2.0 and lodash@4.17.21, user@localhost"),
    ("en", "Coordinates 40.7128 -74.0060, 51.5074, 0.1278; 00:11:22"),
    ("en", "bytes 00 01 02 03 04 05 06 07, 10 20 30 40 50 60"),
    ("en", "Numbers 1 2 3 4 5 6 7 8 9 10 11 12 13; 3141592653"),
    ("da", "I 1999 2000 2001 var der 12.345.678 kr."),
    ("en", "Serial: 0171-2345-678"),
    ("sv", "mellan 1990-2010; 120615-4567"),
    ("en", "AB12 CDEF GHIJ KLMN OPQR"),
    ("pl", "W latach 1939-1945, 123 456 789 zł"),
]


@pytest.mark.parametrize(("text", "expected"), PERSONAL)
def test_personal_data_is_replaced_and_counted(text: str, expected: str) -> None:
    replaced, count = scrub(text, Strip())
    assert replaced == expected
    assert count == expected.count("[")


@pytest.mark.parametrize(("language", "text", "expected"), OF_A_LANGUAGE)
def test_numbers_are_known_by_the_language_of_the_text(language: str, text: str, expected: str) -> None:
    assert scrub(text, Strip(), language) == (expected, expected.count("["))


@pytest.mark.parametrize(("language", "text"), HARMLESS_IN_A_LANGUAGE)
def test_what_only_looks_like_it_stays_in_any_language(language: str, text: str) -> None:
    assert scrub(text, Strip(), language) == (text, 0)


@pytest.mark.parametrize(
    "text", ["a@" * 100_000, "1 " * 100_000, "(1)" * 60_000, "AB12 3456 " * 20_000, "+1 " * 60_000]
)
def test_hostile_texts_end_well(text: str) -> None:
    assert scrub(text, Strip(), "en") == (text, 0)


def test_a_national_number_counts_where_its_language_is_spoken() -> None:
    text = "Call 030 1234567."
    assert scrub(text, Strip(), "de") == ("Call [phone].", 1)
    assert scrub(text, Strip(), "ja") == (text, 0)


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
