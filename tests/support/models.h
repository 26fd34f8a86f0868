// Models for tests, made once per process tree and kept in a temporary folder.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "model/model.h"
#include "model/random_model.h"
#include "support/paths.h"
#include "text/quantize.h"

namespace espalier::test {

inline std::string ReferencePath() { return ModelPath("espalier-reference-f16.gguf"); }
inline std::string TwinPath() { return ModelPath("espalier-twin-f16.gguf"); }

// The twin (6 layers, trained) at `type` ("F16" is the file itself).
inline std::string TwinAt(const std::string& type) {
  if (type == "F16") {
    return TwinPath();
  }
  const std::string path = ScratchFolder() + "/twin-" + type + ".gguf";
  if (!std::filesystem::exists(path)) {
    const Status status = QuantizeModel(TwinPath(), path, type);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  return path;
}

// The shape of a model that is small enough for every plan of it to be tried.
inline RandomModelOptions ThreeLayers(const std::string& type) {
  RandomModelOptions options;
  options.n_layer = 3;
  options.n_embd = 256;
  options.n_ff = 512;
  options.n_head = 4;
  options.n_head_kv = 2;
  options.n_vocab = 512;
  options.n_ctx = 512;
  options.type = type;
  return options;
}

// A random-weight model, made once for each set of options; `name` tells them apart.
inline std::string RandomModel(const std::string& name, const RandomModelOptions& options) {
  const std::string path = ScratchFolder() + "/" + name + ".gguf";
  if (!std::filesystem::exists(path)) {
    const auto made = GenerateRandomModel(options, path);
    EXPECT_TRUE(made.ok()) << made.status().message();
  }
  return path;
}

inline std::shared_ptr<const Model> OpenOrFail(const std::string& path) {
  auto model = Model::Open(path);
  EXPECT_TRUE(model.ok()) << model.status().message();
  return model.ok() ? *model : nullptr;
}

// Pseudo-random tokens, the same on every machine; the first is BOS (1).
inline std::vector<int32_t> SomeTokens(size_t n, int32_t n_vocab, uint32_t seed = 1) {
  std::vector<int32_t> tokens;
  uint32_t state = seed;
  for (size_t i = 0; i < n; ++i) {
    state = state * 1664525U + 1013904223U;
    tokens.push_back(i == 0 ? 1 : 3 + static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(n_vocab - 3)));
  }
  return tokens;
}

}  // namespace espalier::test
