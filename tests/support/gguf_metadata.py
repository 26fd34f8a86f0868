"""A copy of a GGUF file with one more string in its metadata: the bundled models have no chat template."""

import struct

FIXED_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
HEADER_BYTES = 24
ALIGNMENT = 32  # where the file does not say otherwise, which the bundled ones do not


class Cursor:
    def __init__(self, data, at):
        self.data, self.at = data, at

    def number(self, form):
        value, = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def skip_string(self):
        length = self.number("Q")
        self.at += length

    def skip_value(self, kind):
        if kind == STRING:
            self.skip_string()
        elif kind == ARRAY:
            element, count = self.number("I"), self.number("Q")
            for _ in range(count):
                self.skip_value(element)
        else:
            self.at += FIXED_BYTES[kind]


def header_end(data):
    """Where metadata and tensor descriptions end."""
    n_tensors, n_values = struct.unpack_from("<QQ", data, 8)
    cursor = Cursor(data, HEADER_BYTES)
    for _ in range(n_values):
        cursor.skip_string()
        cursor.skip_value(cursor.number("I"))
    for _ in range(n_tensors):
        cursor.skip_string()
        n_dimensions = cursor.number("I")
        cursor.at += 8 * n_dimensions + 4 + 8
    return cursor.at


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def copy_with_string(source, target, key, value):
    data = source.read_bytes()
    end = header_end(data)
    n_tensors, n_values = struct.unpack_from("<QQ", data, 8)
    string = [struct.pack("<Q", len(text.encode())) + text.encode() for text in (key, value)]
    head = (data[:8] + struct.pack("<QQ", n_tensors, n_values + 1) + string[0] + struct.pack("<I", STRING) + string[1]
            + data[HEADER_BYTES:end])
    target.write_bytes(head.ljust(padded(len(head)), b"\0") + data[padded(end):])
