"""The checks of scripts/ find what they are there to find. Run by scripts/test; alone: python3 tests/checks_test.py"""

import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYERS = """
function(espalier_layer name)
endfunction()
espalier_layer(base)
espalier_layer(model base ggml::ggml)
espalier_layer(text model base llama)
espalier_layer(cli text model base nlohmann_json::nlohmann_json CLI11::CLI11)
"""


class CheckLayers(unittest.TestCase):
    def check(self, files, cmake=LAYERS):
        """(exit code, stderr) of check-layers on a tree with these files."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "CMakeLists.txt").write_text(cmake)
            for name, text in {"src/base/a.cpp": "", **files}.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            run = subprocess.run([ROOT / "scripts/check-layers", folder], capture_output=True, text=True)
            return run.returncode, run.stderr

    def assert_violation(self, file, text, words, cmake=LAYERS):
        code, errors = self.check({file: text}, cmake)
        self.assertEqual(code, 1, f"{file} with {text!r} passed")
        self.assertIn(words, errors)

    def test_accepts_includes_that_go_down(self):
        code, errors = self.check({
            "src/model/m.cpp": '#include <ggml.h>\n#include "base/file.h"\n#include "model/m.h"\n',
            "src/text/t.cpp": '#include <llama.h>\n',
            "src/cli/c.cpp": '#include <nlohmann/json.hpp>\n#include "model/m.h"\nint f() { printf("x"); exit(1); }\n',
            "src/model/m_test.cpp": 'int f() { return setenv("A", "B", 1); }\n',
        })
        self.assertEqual((code, errors), (0, ""))

    def test_refuses_includes_that_go_up_or_sideways(self):
        self.assert_violation("src/base/b.cpp", '#include "model/m.h"\n', "src/base/b.cpp:1: model/m.h")
        self.assert_violation("src/model/m.h", '#pragma once\n#include "text/t.h"\n', "src/model/m.h:2")

    def test_refuses_third_parties_outside_their_layers(self):
        self.assert_violation("src/base/b.cpp", "#include <ggml-backend.h>\n", "ggml-backend.h is not for layer base")
        self.assert_violation("src/base/b.cpp", "#include <gguf.h>\n", "gguf.h")
        self.assert_violation("src/model/m.cpp", "#include <llama.h>\n", "llama.h is not for layer model")
        self.assert_violation("src/text/t.h", "#pragma once\n#include <llama.h>\n", "llama.h in a header")
        self.assert_violation("src/text/t.cpp", "#include <nlohmann/json.hpp>\n", "nlohmann")

    def test_refuses_side_effects_below_cli(self):
        for text, words in [
            ('void f() { std::printf("x"); }', "prints"),
            ("void f() { std::cerr << 1; }", "prints"),
            ('void f() { fmt::print("x"); }', "prints"),
            ("void f() { exit(1); }", "ends the process"),
            ("void f() { std::abort(); }", "ends the process"),
            ('void f() { auto* e = std::getenv("HOME"); }', "environment"),
        ]:
            self.assert_violation("src/model/m.cpp", text + "\n", words)

    def test_words_in_comments_and_messages_are_no_side_effects(self):
        code, errors = self.check({"src/model/m.cpp": '// exit(1) is not called\nauto s = "printf(x)"; /* getenv("A")\n */\n'
                                                      "int snprintf_(); void g() { object.exit(); }\n"})
        self.assertEqual((code, errors), (0, ""))

    def test_only_check_h_may_abort(self):
        self.assertEqual(self.check({"src/base/check.h": "#pragma once\n#define C std::abort()\n"})[0], 0)
        self.assert_violation("src/base/other.h", "#pragma once\n#define C std::abort()\n", "ends the process")

    def test_refuses_folders_that_are_no_layer(self):
        self.assert_violation("src/util/u.cpp", "\n", "util is not a layer")

    def test_refuses_a_list_that_is_not_lowest_first(self):
        self.assert_violation("src/base/b.cpp", "\n", "layer base uses model",
                              "espalier_layer(base model)\nespalier_layer(model base)\n")
        self.assert_violation("src/base/b.cpp", "\n", "no espalier_layer", "project(x)\n")

    def test_refuses_headers_without_a_guard(self):
        self.assert_violation("src/base/h.h", "int x;\n", "#pragma once")


if __name__ == "__main__":
    unittest.main()
