#include "model/gguf_writer.h"

#include <gguf.h>

#include "base/bytes.h"

namespace espalier {

static_assert(kGgufAlignment == GGUF_DEFAULT_ALIGNMENT);

void GgufHeader::Free::operator()(gguf_context* gguf) const { gguf_free(gguf); }

GgufHeader::GgufHeader() : gguf_(gguf_init_empty()) {}

void GgufHeader::SetText(const std::string& key, const std::string& value) {
  gguf_set_val_str(gguf_.get(), key.c_str(), value.c_str());
}

void GgufHeader::SetTexts(const std::string& key, std::span<const std::string> values) {
  std::vector<const char*> texts;
  texts.reserve(values.size());
  for (const std::string& value : values) {
    texts.push_back(value.c_str());
  }
  gguf_set_arr_str(gguf_.get(), key.c_str(), texts.data(), texts.size());
}

void GgufHeader::SetUint32(const std::string& key, uint32_t value) {
  gguf_set_val_u32(gguf_.get(), key.c_str(), value);
}

void GgufHeader::SetUint64(const std::string& key, uint64_t value) {
  gguf_set_val_u64(gguf_.get(), key.c_str(), value);
}

void GgufHeader::SetInt64(const std::string& key, int64_t value) { gguf_set_val_i64(gguf_.get(), key.c_str(), value); }

void GgufHeader::SetFloat(const std::string& key, float value) { gguf_set_val_f32(gguf_.get(), key.c_str(), value); }

void GgufHeader::SetFloats(const std::string& key, std::span<const float> values) {
  gguf_set_arr_data(gguf_.get(), key.c_str(), GGUF_TYPE_FLOAT32, values.data(), values.size());
}

void GgufHeader::SetInt32s(const std::string& key, std::span<const int32_t> values) {
  gguf_set_arr_data(gguf_.get(), key.c_str(), GGUF_TYPE_INT32, values.data(), values.size());
}

void GgufHeader::AddTensor(const std::string& name, ggml_type type, std::span<const int64_t> ne) {
  // gguf_add_tensor copies the tensor's description; the context need not outlive it.
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> ggml(
      ggml_init({ggml_tensor_overhead(), nullptr, /*no_alloc=*/true}), ggml_free);
  ggml_tensor* tensor = ggml_new_tensor(ggml.get(), type, static_cast<int>(ne.size()), ne.data());
  ggml_set_name(tensor, name.c_str());
  gguf_add_tensor(gguf_.get(), tensor);
}

std::vector<std::byte> GgufHeader::Bytes() const {
  std::vector<std::byte> bytes(gguf_get_meta_size(gguf_.get()));
  gguf_get_meta_data(gguf_.get(), bytes.data());
  return bytes;
}

Status PadTensor(AtomicFileWriter& writer) {
  const std::vector<std::byte> padding(RoundUp(writer.size(), kGgufAlignment) - writer.size());
  return writer.Append(padding);
}

}  // namespace espalier
