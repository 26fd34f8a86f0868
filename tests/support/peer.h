// Stock llama.cpp tools as witnesses, where ESPALIER_PEER_PREFIX names the prefix that scripts/setup-llama-cpp --tools
// prints.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

namespace espalier::test {

inline constexpr const char* kNoPeer = "ESPALIER_PEER_PREFIX is not set: no stock tools to compare with";

// What `tool` prints for the arguments (shell syntax; redirect there). Empty if there are no tools: skip the test then.
// Some tools lose their last lines at exit now and then: asked again until `expected` is in the output, five times.
inline std::optional<std::string> RunPeer(const std::string& tool, const std::string& arguments,
                                          const std::string& expected = "") {
  const char* prefix = std::getenv("ESPALIER_PEER_PREFIX");
  if (prefix == nullptr || *prefix == '\0') {
    return std::nullopt;
  }
  const std::string root = prefix;
  const std::string command = "LD_LIBRARY_PATH='" + root + "/lib' '" + root + "/bin/" + tool + "' " + arguments;
  std::string output;
  for (int attempt = 0; attempt < 5; ++attempt) {
    output.clear();
    FILE* pipe = popen(command.c_str(), "r");
    EXPECT_NE(pipe, nullptr) << command;
    std::array<char, 4096> buffer;
    while (const size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) {
      output.append(buffer.data(), n);
    }
    EXPECT_EQ(pclose(pipe), 0) << command << "\n" << output;
    if (output.find(expected) != std::string::npos) {
      return output;
    }
  }
  ADD_FAILURE() << command << " never printed '" << expected << "':\n" << output;
  return output;
}

}  // namespace espalier::test
