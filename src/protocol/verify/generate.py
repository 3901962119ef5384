#!/usr/bin/env python3
"""Writes table.rs: which fields a request has in which version, from Kafka's own message specifications.

    python3 src/protocol/verify/generate.py kafka-clients-4.3.1.jar > src/protocol/verify/table.rs

The specifications lie in the jar as common/message/*.json. Every API that a broker's client listener serves is taken
in the versions that Kafka offers, as far as the message crate knows their layout (LAYOUT_MAX); a newer version whose
layout is that of an older one (request and response) is taken along.
"""
import json
import re
import sys
import textwrap
import zipfile

ANY = 255
# APIs that only brokers and controllers send each other, although some are listed for the broker listener.
INTERNAL = {83, 84, 85, 86, 87}
# What our brokers ask each other on it, although Kafka's do not.
PEERS = {59}
# The newest layout that kafka-protocol 0.18 knows, where Kafka has a newer one (a test compares). Version 10 of 8 and 9
# is decoded by by_id.rs. It lacks 88 and 89.
LAYOUT_MAX = {27: 1, 35: 4, 78: 1, 79: 1, 80: 0, 90: 0}
MISSING = {88, 89}
# Responses that carry records: encode_response finds the places to splice by their schema.
WITH_RECORDS = {1, 59, 78}

# Encoded width, which is also the decoded size.
WIDTHS = {"bool": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "float64": 8, "uuid": 16}
# Decoded sizes on a 64-bit machine: Bytes (also in an Option), Vec, and the map of unknown tagged fields.
BYTES, VEC, TAGS = 32, 24, 24


def load(jar, name):
    text = jar.read(f"common/message/{name}.json").decode()
    return json.loads("\n".join(line for line in text.split("\n") if not line.strip().startswith("//")))


def shout(name):
    """ProduceRequest as PRODUCE_REQUEST."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def wrapped(text):
    lines = textwrap.wrap(text, 118, subsequent_indent="    ", break_long_words=False)
    return "\n".join(lines).replace("~", " ")


def versions(text):
    """The first and last version of "3", "3-5", "3+", "none"."""
    if text == "none":
        return None
    if text.endswith("+"):
        return int(text[:-1]), ANY
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def boundaries(fields, flexible):
    """The versions at which the layout changes."""
    found = {flexible[0]} if flexible else set()
    for field in fields:
        for kind in ("versions", "nullableVersions", "taggedVersions"):
            span = versions(field.get(kind, "none"))
            if span:
                found |= {span[0], span[1] + 1}
        found |= boundaries(field.get("fields", []), None)
    return found


class Message:
    """One message's structs, in the order in which they have to be written."""

    def __init__(self, spec, first, last):
        self.first, self.last = first, last
        self.name, self.prefix = spec["name"], shout(spec["name"])
        self.common = {struct["name"]: struct["fields"] for struct in spec.get("commonStructs", [])}
        self.written, self.lines, self.sizes = {}, [], []
        self.root = self.struct(spec["name"], spec["fields"])

    def struct(self, name, fields):
        """Writes the struct once; its static's name."""
        if name in self.written:
            return self.written[name][0]
        positional, tagged, size, width = [], [], TAGS, None
        for field in fields:
            size += self.size(field)
            span = versions(field["versions"])
            if span[1] < self.first or span[0] > self.last:
                continue
            if "tag" in field:
                assert field["taggedVersions"] == field["versions"], field
                tagged.append(f"({field['tag']},~{self.field(field)})")
            else:
                positional.append(self.field(field))
        size = (size + 7) // 8 * 8
        static = self.prefix if name == self.name else f"{self.prefix}_{shout(name)}"
        self.written[name] = (static, size)
        self.lines.append(
            f"static {static}: Struct = Struct {{ decoded_bytes: {size}, fields: &[{', '.join(positional)}], "
            f"tagged: &[{', '.join(tagged)}] }};"
        )
        self.sizes.append(f"({size}, size_of::<messages::{self.prefix.lower()}::{name}>())")
        return static

    def field(self, field):
        assert "flexibleVersions" not in field, field
        low, high = versions(field["versions"])
        text = f"field({low},~{high if high < ANY else 'ANY'},~{self.kind(field)})"
        null = versions(field.get("nullableVersions", "none"))
        if null:
            text += f".null({null[0]},~{null[1] if null[1] < ANY else 'ANY'})"
        return text

    def kind(self, field):
        kind = field["type"]
        simple = {"string": "Str", "bytes": "Bytes", "records": "Records"}
        if kind in WIDTHS:
            return f"Fixed({WIDTHS[kind]})"
        if kind in simple:
            return simple[kind]
        if kind == "[]string":
            return "Strs"
        if kind.startswith("[]") and kind[2:] in WIDTHS:
            return f"Numbers({WIDTHS[kind[2:]]})"
        name = kind.removeprefix("[]")
        static = self.struct(name, field.get("fields") or self.common[name])
        return f"{'Many' if kind.startswith('[]') else 'One'}(&{static})"

    def size(self, field):
        kind = field["type"]
        if kind in WIDTHS:
            return WIDTHS[kind]
        if kind in ("string", "bytes", "records"):
            return BYTES
        if kind.startswith("[]"):
            return VEC
        self.kind(field)
        return self.written[kind][1]


def main():
    jar = zipfile.ZipFile(sys.argv[1])
    names = [n[15:-5] for n in jar.namelist() if n.startswith("common/message/") and n.endswith("Request.json")]
    apis, statics, sizes = [], [], []
    for request in sorted((load(jar, name) for name in names), key=lambda spec: spec["apiKey"]):
        key, span = request["apiKey"], versions(request["validVersions"])
        if not span or key in INTERNAL | MISSING or not ("broker" in request["listeners"] or key in PEERS):
            continue
        response = load(jar, request["name"].replace("Request", "Response"))
        assert response["flexibleVersions"] == request["flexibleVersions"], key
        first, last = span[0], span[1] - bool(request.get("latestVersionUnstable"))
        flexible = versions(request["flexibleVersions"])
        changes = boundaries(request["fields"], flexible) | boundaries(response["fields"], flexible)
        last = min([last] + [c - 1 for c in changes if c > LAYOUT_MAX.get(key, ANY)])
        layout = max([c for c in changes if first < c <= last] or [first])
        body = Message(request, first, last)
        answer = Message(response, first, last) if key in WITH_RECORDS else None
        for message in filter(None, (body, answer)):
            statics += message.lines
            sizes += message.sizes
        apis.append(
            f"Api {{ key: {key}, first: {first}, last: {last}, layout: {layout}, flexible: {flexible[0] if flexible else 'ANY'}, "
            f"request: &{body.root}, response: {f'Some(&{answer.root})' if answer else 'None'} }}"
        )
    print(f"// Generated by generate.py from the specifications in {sys.argv[1].split('/')[-1]}; do not edit.")
    print("use super::schema::Kind::*;\nuse super::schema::{ANY, Api, Struct, field};\n")
    print("/// Every API of a client listener, and what brokers ask each other, by key.")
    print(f"pub(super) static APIS: [Api; {len(apis)}] = [")
    print("\n".join(wrapped("    " + api + ",") for api in apis))
    print("];\n")
    print("\n".join(map(wrapped, statics)))
    print("\n/// What the table believes a decoded struct to take, and what it takes.")
    print("#[cfg(test)]\npub(super) fn sizes() -> Vec<(usize, usize)> {\n    use kafka_protocol::messages;\n    vec![")
    print("\n".join(f"        {size}," for size in sizes))
    print("    ]\n}")


if __name__ == "__main__":
    main()
