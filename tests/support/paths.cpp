#include "support/paths.h"

#include <filesystem>

namespace espalier::test {

std::string DataPath(std::string_view name) { return ESPALIER_TEST_DATA "/" + std::string(name); }

std::string ModelPath(std::string_view name) { return ESPALIER_TEST_MODELS "/" + std::string(name); }

std::string ScratchFolder() {
  std::filesystem::create_directories(ESPALIER_TEST_SCRATCH);
  return ESPALIER_TEST_SCRATCH;
}

std::string ProgramPath() { return ESPALIER_BINARY; }

}  // namespace espalier::test
