// A model in several GGUF files, as llama-gguf-split writes it: NAME-00001-of-00003.gguf and so on. The first file has
// all of the metadata, each has some of the tensors (the first may have none), and three keys hold them together:
// split.no (from 0), split.count, split.tensors.count (of all files).
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "model/gguf_file.h"

namespace espalier {

// Each part takes a file descriptor, and another one while libllama reads the vocabulary. Where the process may have
// fewer (1024 by most systems' default), opening fails, and the error names the file that it came to.
inline constexpr int kMaxSplitParts = 1024;

// Path of file `no` (from 0) of `count`; `prefix` is all before "-00001-of-00003.gguf".
std::string SplitPath(std::string_view prefix, int no, int count);
// The prefix that SplitPath made `path` from; nullopt if it is no such path.
std::optional<std::string> SplitPrefix(std::string_view path, int no, int count);

// In how many files the model is that `file` is one of; 1 for a file that is whole. Fails if the key is no uint16.
Result<int> SplitCount(const GgufFile& file);

// Opens the other files of a model, for GgufFile::Open.
class GgufJoiner {
 public:
  // `first`: the file that the user named; `count`: what SplitCount says of it.
  GgufJoiner(std::shared_ptr<GgufFile> first, int count) : joined_(std::move(first)), count_(count) {}

  // The model as one file. To be called once.
  // kInvalidArgument if the file is not the first one or not named as the first one; kNotFound if another is missing;
  // kCorrupt, naming the file, where the files are not the parts of one model.
  Result<std::shared_ptr<const GgufFile>> Join();

 private:
  Status CheckFirst();
  Status AddPart(int no);
  Status CheckPart(const GgufFile& part, int no) const;
  Status PlaceTensors();

  std::shared_ptr<GgufFile> joined_;
  const int count_;
  std::string prefix_;
  uint64_t n_tensors_ = 0;  // of all files, by the first one's metadata
  std::vector<std::shared_ptr<const ByteSource>> sources_;
  std::vector<size_t> ends_;  // by file: how many tensors it and those before it have
};

}  // namespace espalier
