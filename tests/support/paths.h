// Where tests find files. They are functions of one source, so that no other object has a path in it: a compiler cache
// then serves every checkout.
#pragma once

#include <string>
#include <string_view>

namespace espalier::test {

std::string DataPath(std::string_view name);   // tests/data/NAME
std::string ModelPath(std::string_view name);  // models/NAME

// A folder for made models, shared by all tests of a build and kept between runs. Made when it is not there.
std::string ScratchFolder();

// The built program; empty in builds without it.
std::string ProgramPath();

}  // namespace espalier::test
