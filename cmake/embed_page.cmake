# cmake -D INPUT=page.html -D OUTPUT=page_html.cpp -P embed_page.cmake: the file as the string that PageHtml() returns.
# As numbers: a string literal may be too long for a compiler, and would need every character escaped.
file(READ "${INPUT}" hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
file(WRITE "${OUTPUT}" "#include <string_view>\n\n#include \"server/api.h\"\n\nnamespace espalier {\nnamespace {\n"
  "constexpr char kPage[] = {${bytes}};\n}  // namespace\n\n"
  "std::string_view PageHtml() { return {kPage, sizeof(kPage)}; }\n\n}  // namespace espalier\n")
