#include "model/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "model/gguf_file.h"

namespace espalier {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPagesBetween = 16;

std::span<const std::byte> BytesOf(std::string_view text) { return std::as_bytes(std::span(text)); }

// Descriptive keys, those about the file rather than the model, and the chat template, which is about prompts.
bool BearsOnResults(std::string_view key) {
  if (key == "general.architecture") {
    return true;
  }
  for (const std::string_view prefix : {"general.", "split.", "quantize.", "tokenizer.chat_template"}) {
    if (key.starts_with(prefix)) {
      return false;
    }
  }
  return true;
}

// Integers of any width are one: writers differ in it.
std::string ValueText(const GgufValue& value) {
  struct Visitor {
    std::string operator()(uint64_t v) const { return fmt::format("{}", v); }
    std::string operator()(int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return fmt::format("{:a}", v); }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(const std::string& v) const { return "text " + HashHex(BytesOf(v)); }
    std::string operator()(const GgufArray& array) const {
      if (array.element_type != GgufType::kString) {
        return fmt::format("{} numbers {}", array.size(), HashHex(std::as_bytes(std::span(array.numbers))));
      }
      std::string joined;
      for (const std::string& text : array.strings) {
        joined += fmt::format("{}:{}", text.size(), text);
      }
      return fmt::format("{} texts {}", array.size(), HashHex(BytesOf(joined)));
    }
  };
  return std::visit(Visitor{}, value);
}

// Where the samples of a tensor of `bytes` begin; each is a page long.
std::vector<uint64_t> SampleOffsets(uint64_t bytes) {
  const uint64_t last = bytes - kPage;
  std::vector<uint64_t> offsets = {0};
  for (uint64_t i = 1; i <= kPagesBetween; ++i) {
    offsets.push_back(RoundDown(last / (kPagesBetween + 1) * i, kPage));
  }
  offsets.push_back(last);
  return offsets;
}

Result<std::string> SampleHash(const ByteSource& source, const TensorInfo& tensor) {
  std::vector<std::byte> sample(std::min(tensor.bytes, (kPagesBetween + 2) * kPage));
  if (tensor.bytes <= sample.size()) {
    ESPALIER_RETURN_IF_ERROR(source.ReadAt(tensor.offset, sample));
    return HashHex(sample);
  }
  size_t at = 0;
  for (const uint64_t offset : SampleOffsets(tensor.bytes)) {
    ESPALIER_RETURN_IF_ERROR(source.ReadAt(tensor.offset + offset, std::span(sample).subspan(at, kPage)));
    at += kPage;
  }
  return HashHex(sample);
}

}  // namespace

Result<std::string> Fingerprint(const Model& model) {
  const GgufFile& file = model.gguf();
  std::vector<std::string> lines;
  for (const GgufEntry& entry : file.entries()) {
    if (BearsOnResults(entry.key)) {
      lines.push_back(fmt::format("key {} {}", entry.key, ValueText(entry.value)));
    }
  }
  for (const TensorInfo& tensor : file.tensors()) {
    ESPALIER_ASSIGN_OR_RETURN(const std::string sample, SampleHash(file.source(), tensor));
    lines.push_back(fmt::format("tensor {} {} {} {} {} {} {}", tensor.name, TensorTypeName(tensor), tensor.ne[0],
                                tensor.ne[1], tensor.ne[2], tensor.ne[3], sample));
  }
  std::sort(lines.begin(), lines.end());
  std::string text;
  for (const std::string& line : lines) {
    text += line + '\n';
  }
  return HashHex(BytesOf(text));
}

}  // namespace espalier
