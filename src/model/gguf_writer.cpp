#include "model/gguf_writer.h"

#include <fmt/format.h>
#include <gguf.h>

#include <algorithm>
#include <cmath>

#include "base/bytes.h"
#include "base/check.h"
#include "model/quote.h"

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

namespace {

// The array's numbers as the file has them.
template <class T>
std::vector<T> NumbersOf(const GgufArray& array) {
  return {array.numbers.begin(), array.numbers.end()};
}

}  // namespace

Status GgufHeader::Set(const std::string& key, const GgufEntry& entry) {
  const auto refuse = [&](const char* expected, const char* found) {
    return Unsupported(fmt::format("key {}: expected {}, found {}", Quote(key), expected, found));
  };
  const auto has_nul = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  gguf_context* gguf = gguf_.get();
  const char* name = key.c_str();
  if (const auto* array = std::get_if<GgufArray>(&entry.value)) {
    if (array->element_type == GgufType::kString) {
      if (std::any_of(array->strings.begin(), array->strings.end(), has_nul)) {
        return refuse("texts", "one with NUL in it");
      }
      SetTexts(key, array->strings);
      return Status::Ok();
    }
    constexpr double kExact = 9007199254740992.0;
    const auto type = static_cast<gguf_type>(array->element_type);
    const auto set = [&](const auto& numbers) { gguf_set_arr_data(gguf, name, type, numbers.data(), numbers.size()); };
    const bool wide = array->element_type == GgufType::kInt64 || array->element_type == GgufType::kUint64;
    if (wide && std::any_of(array->numbers.begin(), array->numbers.end(),
                            [](double number) { return std::fabs(number) >= kExact; })) {
      return refuse("integers of at most 53 bits", "a longer one");
    }
    switch (array->element_type) {
      case GgufType::kUint8:
        set(NumbersOf<uint8_t>(*array));
        break;
      case GgufType::kInt8:
      case GgufType::kBool:
        set(NumbersOf<int8_t>(*array));
        break;
      case GgufType::kUint16:
        set(NumbersOf<uint16_t>(*array));
        break;
      case GgufType::kInt16:
        set(NumbersOf<int16_t>(*array));
        break;
      case GgufType::kUint32:
        set(NumbersOf<uint32_t>(*array));
        break;
      case GgufType::kInt32:
        set(NumbersOf<int32_t>(*array));
        break;
      case GgufType::kUint64:
        set(NumbersOf<uint64_t>(*array));
        break;
      case GgufType::kInt64:
        set(NumbersOf<int64_t>(*array));
        break;
      case GgufType::kFloat32:
        set(NumbersOf<float>(*array));
        break;
      case GgufType::kFloat64:
        set(array->numbers);
        break;
      case GgufType::kString:
      case GgufType::kArray:
        ESPALIER_CHECK(false);  // above; arrays of arrays are refused where files are read
    }
    return Status::Ok();
  }
  // Integers of any width lie in 64 bits of their signedness.
  const auto integer = [&] {
    const auto* natural = std::get_if<uint64_t>(&entry.value);
    return natural != nullptr ? *natural : static_cast<uint64_t>(std::get<int64_t>(entry.value));
  };
  switch (entry.type) {
    case GgufType::kUint8:
      gguf_set_val_u8(gguf, name, static_cast<uint8_t>(integer()));
      break;
    case GgufType::kInt8:
      gguf_set_val_i8(gguf, name, static_cast<int8_t>(integer()));
      break;
    case GgufType::kUint16:
      gguf_set_val_u16(gguf, name, static_cast<uint16_t>(integer()));
      break;
    case GgufType::kInt16:
      gguf_set_val_i16(gguf, name, static_cast<int16_t>(integer()));
      break;
    case GgufType::kUint32:
      gguf_set_val_u32(gguf, name, static_cast<uint32_t>(integer()));
      break;
    case GgufType::kInt32:
      gguf_set_val_i32(gguf, name, static_cast<int32_t>(integer()));
      break;
    case GgufType::kUint64:
      gguf_set_val_u64(gguf, name, integer());
      break;
    case GgufType::kInt64:
      gguf_set_val_i64(gguf, name, static_cast<int64_t>(integer()));
      break;
    case GgufType::kFloat32:
      gguf_set_val_f32(gguf, name, static_cast<float>(std::get<double>(entry.value)));
      break;
    case GgufType::kFloat64:
      gguf_set_val_f64(gguf, name, std::get<double>(entry.value));
      break;
    case GgufType::kBool:
      gguf_set_val_bool(gguf, name, std::get<bool>(entry.value));
      break;
    case GgufType::kString:
      if (has_nul(std::get<std::string>(entry.value))) {
        return refuse("text", "text with NUL in it");
      }
      SetText(key, std::get<std::string>(entry.value));
      break;
    case GgufType::kArray:
      ESPALIER_CHECK(false);  // above
  }
  return Status::Ok();
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
