"""Every mistake in a CSV file is listed with its line number, before anything is written."""

from __future__ import annotations

import pytest

from rollwave.cli.devices_csv import Device, Mistake, read_devices


def test_columns_beyond_id_and_type_are_attributes() -> None:
    devices, mistakes = read_devices(b"device_id,device_type,site,rev\ngw-1,gateway,north,B\ngw-2,,,\n")
    assert mistakes == []
    assert devices == [
        Device("gw-1", "gateway", {"site": "north", "rev": "B"}),
        Device("gw-2", None, {}),
    ]


def test_a_byte_order_mark_carriage_returns_and_blank_lines_are_accepted() -> None:
    devices, mistakes = read_devices(b"\xef\xbb\xbfdevice_id\r\n\r\ngw-1\r\n gw-2 \r\n")
    assert mistakes == []
    assert [device.device_id for device in devices] == ["gw-1", "gw-2"]


def test_every_valid_device_id_is_accepted() -> None:
    content = 'device_id\nPump 7\ngerät@1\na..b\n"a,b ""c"""\ne\u0301\n\u00e9\n\U0001f469\u200d\U0001f527\n'
    devices, mistakes = read_devices(content.encode())
    assert mistakes == []
    assert [each.device_id for each in devices] == [
        *("Pump 7", "gerät@1", "a..b", 'a,b "c"', "e\u0301", "\u00e9", "\U0001f469\u200d\U0001f527")
    ]


def test_each_mistake_is_named_with_its_line_number() -> None:
    content = b'device_id,note\ngw-1,"two\nlines"\ngw/2,x\ngw-1,again\n\nshort\n' + b"x" * 129 + b",long\n"
    _, mistakes = read_devices(content)
    assert [mistake.line for mistake in mistakes] == [4, 5, 7, 8]
    assert "'gw/2'" in mistakes[0].what
    assert mistakes[1] == Mistake(5, "device id gw-1 is a duplicate of line 2")
    assert mistakes[2] == Mistake(7, "has 1 values for 2 columns")


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b"", 1, "device_id"),
        (b"id\ngw-1\n", 1, "device_id"),
        (b"device_id,a,a\n", 1, "same name"),
        (b"device_id,,a\n", 1, "no name"),
        (b"device_id,DEVICE_ID\n", 1, "same name"),
        (b"sep=;\nid;a\n", 2, "device_id"),
        (b"device_id\n", 1, "contains no device"),
        ("device_id\n".encode("utf-16"), 1, "contains no device"),
        (b"\xff\xfed", 1, "not UTF-8"),
        (b"device_id\ngw-1\n\xff\n", 3, "not UTF-8"),
        (b'device_id\n"gw-1\n', 2, "not CSV"),
        (b"device_id,a\ngw-1,\x00\n", 2, "NUL"),
    ],
)
def test_a_file_that_is_not_a_device_list_is_refused(content: bytes, line: int, what: str) -> None:
    _, mistakes = read_devices(content)
    assert [mistake.line for mistake in mistakes] == [line]
    assert what in mistakes[0].what


NORTH = [Device("gw-1", "gateway", {"Site": "north, hall 2"}), Device("gw-2", None, {})]


@pytest.mark.parametrize(
    "text",
    [
        'device_id,device_type,Site\ngw-1,gateway,"north, hall 2"\ngw-2,,\n',
        "device_id;device_type;Site\ngw-1;gateway;north, hall 2\ngw-2;;\n",
        "device_id\tdevice_type\tSite\r\ngw-1\tgateway\tnorth, hall 2\r\ngw-2\t\t\r\n",
        "sep=;\r\ndevice_id;device_type;Site\r\ngw-1;gateway;north, hall 2\r\ngw-2;;\r\n",
        "SEP=|\ndevice_id|device_type|Site\ngw-1|gateway|north, hall 2\ngw-2||\n",
        "sep=\t\ndevice_id\tdevice_type\tSite\ngw-1\tgateway\tnorth, hall 2\ngw-2\t\t\n",
        "DEVICE_ID;Device_Type;Site\ngw-1;gateway;north, hall 2\ngw-2;;\n",
        "Site;Device_Id;DEVICE_TYPE\nnorth, hall 2;gw-1;gateway\n;gw-2;\n",
        "device_id;device_type;Site;;\ngw-1;gateway;north, hall 2;;\ngw-2;;;;\n;;;;\n; ;;;\n",
        "device_id;device_type;Site\ngw-1;gateway;north, hall 2;;;\ngw-2;;\n;;\n",
        ";;\n;;\ndevice_id;device_type;Site\ngw-1;gateway;north, hall 2\ngw-2;;\n",
        "device_id;device_type;Site\rgw-1;gateway;north, hall 2\rgw-2;;\r",
    ],
    ids=range(12),
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_written_by_spreadsheets_are_accepted(text: str, encoding: str) -> None:
    assert read_devices(text.encode(encoding)) == (NORTH, [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_an_editor_counts_them(encoding: str, end: str) -> None:
    lines = ["sep=;", "device_id;note", ";", 'gw-1;"two', 'lines"', "gw/2;x", ";", "", "gw-1;again", "gw-3;x;y", "gw-4"]
    _, mistakes = read_devices(end.join(lines).encode(encoding))
    assert [mistake.line for mistake in mistakes] == [6, 9, 10, 11]
    assert mistakes[1].what == "device id gw-1 is a duplicate of line 4"


def test_a_quoted_comma_in_a_header_does_not_split_the_column() -> None:
    assert read_devices(b"device_id;site,rev\ngw-1;x\n") == ([Device("gw-1", None, {"site,rev": "x"})], [])
