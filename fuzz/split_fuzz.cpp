// Any bytes as a model in several files: one begins wherever the magic stands. The reader must answer with one line
// that names a file, or with a model whose tensors lie in the files that their tables were in.
#include <ggml.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "model/gguf_split.h"
#include "model/model.h"

namespace {

using namespace espalier;  // NOLINT: a fuzz target is about one library

constexpr size_t kMostFiles = 6;

// What is in front of the first magic belongs to the first file.
std::vector<std::string_view> Files(std::string_view bytes) {
  std::vector<std::string_view> files;
  size_t begin = 0;
  while (files.size() + 1 < kMostFiles) {
    const size_t next = bytes.find("GGUF", begin + 1);
    if (next == std::string_view::npos) {
      break;
    }
    files.push_back(bytes.substr(begin, next - begin));
    begin = next;
  }
  files.push_back(bytes.substr(begin));
  return files;
}

void CheckModel(const GgufFile& file, const std::vector<std::string_view>& files) {
  ESPALIER_CHECK(file.paths().size() == files.size());
  ESPALIER_CHECK(file.tensors().size() <= kMaxGgufTensors);
  std::vector<uint64_t> ends;
  for (const std::string_view part : files) {
    ends.push_back((ends.empty() ? 0 : ends.back()) + part.size());
  }
  ESPALIER_CHECK(file.source().size() == ends.back());
  for (const TensorInfo& tensor : file.tensors()) {
    ESPALIER_CHECK(file.FindTensor(tensor.name) == &tensor);
    const uint64_t end = tensor.offset + tensor.bytes;
    size_t part = 0;
    while (tensor.offset >= ends[part]) {
      ++part;
    }
    ESPALIER_CHECK(tensor.bytes > 0 && end <= ends[part]);
    std::string data(tensor.bytes, '\0');
    ESPALIER_CHECK(file.source().ReadAt(tensor.offset, std::as_writable_bytes(std::span(data))).ok());
    const uint64_t start = ends[part] - files[part].size();
    ESPALIER_CHECK(data == files[part].substr(tensor.offset - start, tensor.bytes));
  }
}

// In memory where the system has such a folder.
const std::string& Folder() {
  static const std::string folder = [] {
    const char* parent = std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp";
    std::string path = std::string(parent) + "/espalier-split-fuzz-" + std::to_string(::getpid());
    std::filesystem::create_directory(path);
    return path;
  }();
  return folder;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  ggml_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  Folder();
  std::atexit([] { std::filesystem::remove_all(Folder()); });
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<std::string_view> files = Files({reinterpret_cast<const char*>(data), size});
  const int count = static_cast<int>(files.size());
  const auto path = [&](int no) { return SplitPath(Folder() + "/m", no, count); };
  for (int no = 0; no < count; ++no) {
    ESPALIER_CHECK(WriteWholeFile(path(no), files[static_cast<size_t>(no)]).ok());
  }
  const auto file = GgufFile::Open(path(0));
  if (!file.ok()) {
    ESPALIER_CHECK(file.status().message().starts_with(Folder()));
    ESPALIER_CHECK(file.status().message().find('\n') == std::string::npos);
  } else if ((*file)->paths().size() > 1) {
    CheckModel(**file, files);
    const auto model = Model::FromGguf(*file);
    ESPALIER_CHECK(model.ok() || model.status().message().starts_with(Folder()));
  }
  for (int no = 0; no < count; ++no) {
    std::filesystem::remove(path(no));
  }
  return 0;
}
