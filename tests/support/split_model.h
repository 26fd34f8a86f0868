// Models split into several files.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "model/gguf_file.h"
#include "model/gguf_split.h"
#include "model/gguf_writer.h"

namespace espalier::test {

struct SplitOptions {
  size_t most_tensors = 128;     // of one file
  bool no_tensor_first = false;  // metadata alone in the first file
};

// Writes the model as PREFIX-00001-of-0000N.gguf and so on, as llama-gguf-split does, byte for byte (a test holds it to
// that); returns the paths. REQUIRES: a file of the default alignment.
inline std::vector<std::string> SplitModel(const std::string& path, const std::string& prefix,
                                           const SplitOptions& options) {
  const auto opened = GgufFile::Open(path);
  EXPECT_TRUE(opened.ok()) << opened.status().message();
  const GgufFile& model = **opened;
  const size_t n_tensors = model.tensors().size();
  const size_t first = options.no_tensor_first ? 1 : 0;
  const size_t n_parts = first + (n_tensors + options.most_tensors - 1) / options.most_tensors;
  std::vector<std::string> paths;
  for (size_t no = 0; no < n_parts; ++no) {
    const size_t begin = no < first ? 0 : (no - first) * options.most_tensors;
    const size_t end = no < first ? 0 : std::min(n_tensors, begin + options.most_tensors);
    const auto tensors = model.tensors().subspan(begin, end - begin);
    GgufHeader header;
    const auto set = [&](const GgufEntry& entry) { EXPECT_TRUE(header.Set(entry.key, entry).ok()) << entry.key; };
    if (no == 0) {
      std::for_each(model.entries().begin(), model.entries().end(), set);
    }
    set({"split.no", GgufType::kUint16, uint64_t{no}});
    set({"split.tensors.count", GgufType::kInt32, static_cast<int64_t>(n_tensors)});
    set({"split.count", GgufType::kUint16, uint64_t{n_parts}});
    for (const TensorInfo& tensor : tensors) {
      header.AddTensor(tensor.name, tensor.type, std::span(tensor.ne).first(static_cast<size_t>(tensor.n_dims)));
    }
    paths.push_back(SplitPath(prefix, static_cast<int>(no), static_cast<int>(n_parts)));
    const auto writer = AtomicFileWriter::Create(paths.back());
    EXPECT_TRUE(writer.ok()) << writer.status().message();
    EXPECT_TRUE((*writer)->Append(header.Bytes()).ok());
    for (const TensorInfo& tensor : tensors) {
      std::vector<std::byte> data(tensor.bytes);
      EXPECT_TRUE(model.source().ReadAt(tensor.offset, data).ok());
      EXPECT_TRUE((*writer)->Append(data).ok());
      EXPECT_TRUE(PadTensor(**writer).ok());
    }
    EXPECT_TRUE((*writer)->Commit().ok());
  }
  return paths;
}

}  // namespace espalier::test
