// Whatever a valid GGUF holds, our reader finds it, also when our own writer has written it anew.
#include <fmt/format.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "model/gguf_file.h"
#include "model/gguf_writer.h"
#include "support/gguf_bytes.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of hand-made files

constexpr uint32_t kTypes = 13;
constexpr uint32_t kString = static_cast<uint32_t>(GgufType::kString);
constexpr uint32_t kArray = static_cast<uint32_t>(GgufType::kArray);

class GgufProperty : public testing::TestWithParam<uint32_t> {
 protected:
  bool OneIn(uint32_t n) { return random_() % n == 0; }
  size_t Below(size_t n) { return random_() % n; }

  std::string AnyBytes(size_t least, size_t most, bool nul) {
    std::string bytes(least + Below(most - least + 1), '\0');
    for (char& byte : bytes) {
      byte = static_cast<char>(nul ? random_() % 256 : 1 + random_() % 255);
    }
    return bytes;
  }
  // Of a scalar of that type: any bits, but for bool.
  std::string AnyScalar(uint32_t type) {
    constexpr size_t kBytes[kTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == static_cast<uint32_t>(GgufType::kBool)) {
      return Raw<uint8_t>(random_() % 2);
    }
    std::string bytes = AnyBytes(kBytes[type], kBytes[type], true);
    if (OneIn(6)) {
      std::fill(bytes.begin(), bytes.end(), OneIn(2) ? '\xff' : '\0');
    }
    return bytes;
  }

  // `nul`: texts may have NUL in them, and arrays integers of more than 53 bits: valid, but beyond our writer.
  RawValue SomeValue(uint32_t type, bool nul) {
    if (type == kString) {
      return Str(AnyBytes(0, 40, nul));
    }
    if (type != kArray) {
      return {type, AnyScalar(type)};
    }
    uint32_t element = 0;
    do {
      element = static_cast<uint32_t>(Below(kTypes));
    } while (element == kArray || (!nul && (element == 10 || element == 11)));
    const size_t count = OneIn(4) ? 0 : Below(30);
    std::string elements;
    for (size_t i = 0; i < count; ++i) {
      elements += element == kString ? RawString(AnyBytes(0, 10, nul)) : AnyScalar(element);
    }
    return Array(element, count, elements);
  }

  // Every type that ggml has, 1 to 4 dimensions.
  RawTensor SomeTensor(const std::string& name) {
    ggml_type type = GGML_TYPE_F32;
    do {
      type = static_cast<ggml_type>(random_() % GGML_TYPE_COUNT);
    } while (ggml_type_size(type) == 0 || ggml_blck_size(type) == 0);
    std::vector<int64_t> ne = {ggml_blck_size(type) * static_cast<int64_t>(1 + Below(3))};
    for (size_t d = Below(4); d > 0; --d) {
      ne.push_back(static_cast<int64_t>(1 + Below(4)));
    }
    return {name, ne, static_cast<uint32_t>(type), {}, {}, {}};
  }

  GgufBytes SomeFile(bool nul) {
    GgufBytes file;
    file.version = OneIn(3) ? 2 : 3;
    for (uint32_t i = 0; i < 5 + Below(30); ++i) {
      file.Set(fmt::format("{}{}", i, AnyBytes(0, 12, false)),
               SomeValue(i < kTypes ? i : static_cast<uint32_t>(Below(kTypes)), nul));
    }
    for (size_t i = Below(20); i > 0; --i) {
      file.tensors.push_back(SomeTensor(fmt::format("{}{}", i, AnyBytes(0, 40, false))));
    }
    return file;
  }

  static std::shared_ptr<const GgufFile> Parsed(const std::string& bytes) {
    const auto file = GgufFile::Parse(Source(bytes));
    EXPECT_TRUE(file.ok()) << file.status().message();
    return file.ok() ? *file : nullptr;
  }

  static std::string WithData(const GgufBytes& file, std::mt19937* random) {
    std::string bytes = file.Build();
    for (size_t i = file.Metadata().size(); i < bytes.size(); ++i) {
      bytes[i] = static_cast<char>((*random)());
    }
    return bytes;
  }

  std::mt19937 random_{GetParam()};
};

// As the file has it.
std::string BytesOfNumber(GgufType type, double number) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kBool:
      return Raw(static_cast<uint8_t>(number));
    case GgufType::kInt8:
      return Raw(static_cast<int8_t>(number));
    case GgufType::kUint16:
      return Raw(static_cast<uint16_t>(number));
    case GgufType::kInt16:
      return Raw(static_cast<int16_t>(number));
    case GgufType::kUint32:
      return Raw(static_cast<uint32_t>(number));
    case GgufType::kInt32:
      return Raw(static_cast<int32_t>(number));
    case GgufType::kFloat32:
      return Raw(static_cast<float>(number));
    case GgufType::kFloat64:
      return Raw(number);
    default:
      return "";
  }
}

std::string BytesOfValue(const GgufEntry& entry) {
  if (const auto* text = std::get_if<std::string>(&entry.value)) {
    return RawString(*text);
  }
  if (const auto* number = std::get_if<double>(&entry.value)) {
    return BytesOfNumber(entry.type, *number);
  }
  if (const auto* flag = std::get_if<bool>(&entry.value)) {
    return Raw(static_cast<uint8_t>(*flag));
  }
  const auto* natural = std::get_if<uint64_t>(&entry.value);
  const uint64_t bits = natural != nullptr ? *natural : static_cast<uint64_t>(std::get<int64_t>(entry.value));
  constexpr size_t kBytes[kTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return Raw(bits).substr(0, kBytes[static_cast<size_t>(entry.type)]);
}

// NaNs of a float keep their payload through a double, except that they become quiet.
bool IsSignallingNan(const std::string& bytes) {
  if (bytes.size() != sizeof(float)) {
    return false;
  }
  uint32_t bits = 0;
  std::memcpy(&bits, bytes.data(), sizeof(bits));
  return (bits & 0x7fc00000) == 0x7f800000 && (bits & 0x3fffff) != 0;
}

void ExpectElement(GgufType type, double found, const std::string& bytes) {
  if (type == GgufType::kInt64) {
    int64_t expected = 0;
    std::memcpy(&expected, bytes.data(), sizeof(expected));
    EXPECT_EQ(found, static_cast<double>(expected));
  } else if (type == GgufType::kUint64) {
    uint64_t expected = 0;
    std::memcpy(&expected, bytes.data(), sizeof(expected));
    EXPECT_EQ(found, static_cast<double>(expected));
  } else if (type == GgufType::kFloat32 && IsSignallingNan(bytes)) {
    EXPECT_TRUE(std::isnan(found));
  } else {
    EXPECT_EQ(BytesOfNumber(type, found), bytes);
  }
}

void ExpectArray(const GgufArray& array, const std::string& bytes) {
  uint32_t type = 0;
  uint64_t count = 0;
  std::memcpy(&type, bytes.data(), sizeof(type));
  std::memcpy(&count, bytes.data() + sizeof(type), sizeof(count));
  EXPECT_EQ(array.element_type, static_cast<GgufType>(type));
  ASSERT_EQ(array.size(), count);
  const std::string elements = bytes.substr(sizeof(type) + sizeof(count));
  if (array.element_type == GgufType::kString) {
    std::string found;
    for (const std::string& text : array.strings) {
      found += RawString(text);
    }
    EXPECT_EQ(found, elements);
    return;
  }
  for (uint64_t i = 0; i < count; ++i) {
    const size_t each = elements.size() / count;
    ExpectElement(array.element_type, array.numbers[i], elements.substr(i * each, each));
  }
}

void ExpectEntries(const GgufFile& file, const GgufBytes& expected) {
  ASSERT_EQ(file.entries().size(), expected.entries.size());
  for (size_t i = 0; i < expected.entries.size(); ++i) {
    const auto& [key, value] = expected.entries[i];
    const GgufEntry& entry = file.entries()[i];
    EXPECT_EQ(entry.key, key);
    EXPECT_EQ(entry.type, static_cast<GgufType>(value.type));
    EXPECT_EQ(file.FindEntry(key), &entry);
    if (const auto* array = std::get_if<GgufArray>(&entry.value)) {
      ExpectArray(*array, value.bytes);
    } else if (entry.type == GgufType::kFloat32 && IsSignallingNan(value.bytes)) {
      EXPECT_TRUE(std::isnan(std::get<double>(entry.value)));
    } else {
      EXPECT_EQ(BytesOfValue(entry), value.bytes) << "type " << value.type;
    }
  }
}

void ExpectTensors(const GgufFile& file, const GgufBytes& expected, const std::string& bytes) {
  ASSERT_EQ(file.tensors().size(), expected.tensors.size());
  uint64_t offset = expected.Metadata().size();
  for (size_t i = 0; i < expected.tensors.size(); ++i) {
    const TensorInfo& tensor = file.tensors()[i];
    const RawTensor& raw = expected.tensors[i];
    EXPECT_EQ(tensor.name, raw.name);
    EXPECT_EQ(file.FindTensor(raw.name), &tensor);
    EXPECT_EQ(static_cast<uint32_t>(tensor.type), raw.type);
    ASSERT_EQ(tensor.n_dims, static_cast<int>(raw.ne.size()));
    for (size_t d = 0; d < tensor.ne.size(); ++d) {
      EXPECT_EQ(tensor.ne[d], d < raw.ne.size() ? raw.ne[d] : 1);
    }
    EXPECT_EQ(tensor.bytes, raw.bytes());
    EXPECT_EQ(tensor.offset, offset);
    offset += expected.Padded(raw.bytes());
    std::string data(tensor.bytes, '\0');
    ASSERT_TRUE(file.source().ReadAt(tensor.offset, std::as_writable_bytes(std::span(data))).ok());
    EXPECT_EQ(data, bytes.substr(tensor.offset, tensor.bytes));
  }
}

TEST_P(GgufProperty, WhatWasPutInIsFound) {
  for (int i = 0; i < 10; ++i) {
    GgufBytes expected = SomeFile(true);
    if (OneIn(2)) {
      expected.alignment = uint64_t{8} << Below(10);
      expected.Set("general.alignment", U32(static_cast<uint32_t>(expected.alignment)));
    }
    std::string bytes = WithData(expected, &random_);
    if (OneIn(2) && !expected.tensors.empty()) {  // the last one's padding may be missing
      const uint64_t last = expected.tensors.back().bytes();
      bytes.resize(bytes.size() - (expected.Padded(last) - last));
    }
    const auto file = Parsed(bytes);
    ASSERT_NE(file, nullptr);
    EXPECT_EQ(file->version(), expected.version);
    EXPECT_EQ(file->alignment(), expected.alignment);
    ExpectEntries(*file, expected);
    ExpectTensors(*file, expected, bytes);
  }
}

// Through ggml's writer, which knows neither version 2 nor NUL in texts.
TEST_P(GgufProperty, WrittenAnewItIsTheSame) {
  for (int i = 0; i < 10; ++i) {
    GgufBytes expected = SomeFile(false);
    expected.version = 3;
    for (RawTensor& tensor : expected.tensors) {  // an extent of 1 at the end is no dimension to ggml
      while (tensor.ne.size() > 1 && tensor.ne.back() == 1) {
        tensor.ne.pop_back();
      }
    }
    const std::string bytes = WithData(expected, &random_);
    const auto file = Parsed(bytes);
    ASSERT_NE(file, nullptr);
    GgufHeader header;
    for (const GgufEntry& entry : file->entries()) {
      const Status status = header.Set(entry.key, entry);
      ASSERT_TRUE(status.ok()) << status.message();
    }
    for (const TensorInfo& tensor : file->tensors()) {
      header.AddTensor(tensor.name, tensor.type, std::span(tensor.ne).first(static_cast<size_t>(tensor.n_dims)));
    }
    const auto written = header.Bytes();
    const std::string head(reinterpret_cast<const char*>(written.data()), written.size());
    ASSERT_EQ(head.size(), expected.Metadata().size());
    const auto again = Parsed(head + bytes.substr(head.size()));
    ASSERT_NE(again, nullptr);
    ExpectEntries(*again, expected);
    for (size_t t = 0; t < file->tensors().size(); ++t) {
      EXPECT_EQ(again->tensors()[t].name, file->tensors()[t].name);
      EXPECT_EQ(again->tensors()[t].type, file->tensors()[t].type);
      EXPECT_EQ(again->tensors()[t].offset, file->tensors()[t].offset);
      EXPECT_EQ(again->tensors()[t].bytes, file->tensors()[t].bytes);
    }
  }
}

// A file that was cut anywhere, or whose bytes were changed anywhere, is refused in one line or read; never more.
TEST_P(GgufProperty, DamageIsToldInOneLine) {
  const GgufBytes whole = SomeFile(true);
  const std::string bytes = whole.Build();
  for (int i = 0; i < 200; ++i) {
    std::string damaged = bytes;
    if (OneIn(2)) {
      damaged.resize(Below(bytes.size()));
    } else {
      damaged[Below(std::min(bytes.size(), whole.Metadata().size()))] = static_cast<char>(random_());
    }
    const auto file = GgufFile::Parse(Source(damaged));
    if (!file.ok()) {
      EXPECT_TRUE(file.status().message().starts_with("<memory>: ")) << file.status().message();
      EXPECT_EQ(file.status().message().find('\n'), std::string::npos) << file.status().message();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, GgufProperty, testing::Range(1u, 31u));

}  // namespace
}  // namespace espalier
