// Any bytes as a model file: the reader and the model map must answer with a model or with one line, and ggml must
// accept whatever we accept, because it reads the file next.
#include <ggml.h>
#include <gguf.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "model/model.h"
#include "model/plan.h"

namespace {

using espalier::GgufFile;
using espalier::Model;

void CheckMessage(const espalier::Status& status) {
  ESPALIER_CHECK(status.message().rfind("<memory>: ", 0) == 0);
  ESPALIER_CHECK(status.message().find('\n') == std::string::npos);
}

void CheckGgmlAccepts(const uint8_t* data, size_t size, const GgufFile& file) {
  ggml_context* tensors = nullptr;
  gguf_context* gguf = gguf_init_from_buffer(data, size, {/*no_alloc=*/true, &tensors});
  ESPALIER_CHECK(gguf != nullptr);
  ESPALIER_CHECK(gguf_get_n_tensors(gguf) == static_cast<int64_t>(file.tensors().size()));
  ESPALIER_CHECK(gguf_get_n_kv(gguf) == static_cast<int64_t>(file.entries().size()));
  for (int64_t i = 0; i < gguf_get_n_tensors(gguf); ++i) {
    const espalier::TensorInfo& tensor = file.tensors()[static_cast<size_t>(i)];
    ESPALIER_CHECK(tensor.name == gguf_get_tensor_name(gguf, i));
    ESPALIER_CHECK(tensor.offset == gguf_get_data_offset(gguf) + gguf_get_tensor_offset(gguf, i));
    ESPALIER_CHECK(tensor.bytes == gguf_get_tensor_size(gguf, i));
    ESPALIER_CHECK(tensor.offset + tensor.bytes <= size);
  }
  gguf_free(gguf);
  ggml_free(tensors);
}

void UseModel(const Model& model) {
  uint64_t bytes = model.globals().file_bytes;
  for (int i = 0; i < model.n_block(); ++i) {
    bytes += model.block({i}).file_bytes;
  }
  ESPALIER_CHECK(bytes <= model.gguf().source().size());
  ESPALIER_CHECK(!model.display_name().empty());
  ESPALIER_CHECK(!model.quantization().empty());
  ESPALIER_CHECK(espalier::Plan::Dense(model.n_layer()).n_block() == model.n_block());
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  ggml_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto source = std::make_shared<espalier::MemorySource>(std::as_bytes(std::span(data, size)));
  const auto file = GgufFile::Parse(source);
  if (!file.ok()) {
    CheckMessage(file.status());
    return 0;
  }
  CheckGgmlAccepts(data, size, **file);
  const auto model = Model::FromGguf(*file);
  if (model.ok()) {
    UseModel(**model);
  } else {
    CheckMessage(model.status());
  }
  return 0;
}
