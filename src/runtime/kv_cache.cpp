#include "runtime/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace espalier {
namespace {

constexpr int64_t kMinRotation = 64;

// Entry (i, j) is (-1)^popcount(i & j) / sqrt(n). n: a power of two.
std::vector<float> WalshHadamard(int64_t n) {
  std::vector<float> matrix(static_cast<size_t>(n * n));
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<float>(n)));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const bool odd = std::popcount(static_cast<uint64_t>(i & j)) % 2 != 0;
      matrix[static_cast<size_t>(i * n + j)] = odd ? -scale : scale;
    }
  }
  return matrix;
}

}  // namespace

KvGeometry KvCache::Geometry(const HyperParameters& hparams, const Device& device, const KvOptions& options) {
  KvGeometry geometry;
  const auto heads = static_cast<uint64_t>(hparams.n_head_kv);
  geometry.key_bytes_per_cell = heads * ggml_row_size(options.key_type, hparams.head_dim);
  geometry.value_bytes_per_cell = heads * ggml_row_size(options.value_type, hparams.head_dim);
  geometry.n_planes = 2 * hparams.n_head_kv;
  geometry.page_bytes = device.is_host() ? Region::PageSize() : 1;
  geometry.capacity = static_cast<int64_t>(RoundUp(static_cast<uint64_t>(options.capacity), kKvPadding));
  geometry.commits_everything = !device.is_host();
  return geometry;
}

KvCache::KvCache(const HyperParameters& hparams, const Device* device, const KvOptions& options)
    : hparams_(hparams),
      device_(device),
      options_(options),
      geometry_(Geometry(hparams, *device, options)),
      layers_(options.shared ? 1 : static_cast<size_t>(hparams.n_layer)) {
  constexpr int kHostSlots = 64;
  const int by_default = device->is_host() ? kHostSlots : 1;
  int64_t n_slots = options.max_sequences > 0 ? options.max_sequences : by_default;
  if (device->is_host()) {
    // Slots begin with a page in every plane, whatever the width of rows: none shares one with another.
    const auto cells_of_whole_pages = [&](ggml_type type) {
      const uint64_t row = ggml_row_size(type, hparams.head_dim);
      return Region::PageSize() / std::gcd(Region::PageSize(), row);
    };
    const uint64_t unit = std::max({static_cast<uint64_t>(kKvPadding), cells_of_whole_pages(options.key_type),
                                    cells_of_whole_pages(options.value_type)});
    const int64_t longest =
        options.max_sequence_cells > 0 ? std::min(options.max_sequence_cells, geometry_.capacity) : geometry_.capacity;
    stride_ = static_cast<int64_t>(RoundUp(static_cast<uint64_t>(longest), unit));
  } else {
    n_slots = std::min(n_slots, geometry_.capacity / kKvPadding);
    stride_ = static_cast<int64_t>(RoundDown(static_cast<uint64_t>(geometry_.capacity / n_slots), kKvPadding));
    geometry_.capacity = n_slots * stride_;
  }
  slots_.resize(static_cast<size_t>(n_slots));
  MakeRotations();
}

void KvCache::MakeRotations() {
  // libllama's choice: keys in the largest power of two that divides the head, values in groups of 64.
  const auto order = [&](ggml_type type, bool largest) -> int64_t {
    if (!ggml_is_quantized(type) || hparams_.head_dim % kMinRotation != 0) {
      return 0;
    }
    int64_t n = kMinRotation;
    while (largest && hparams_.head_dim % (2 * n) == 0) {
      n *= 2;
    }
    return n;
  };
  const int64_t key_order = order(options_.key_type, true);
  const int64_t value_order = order(options_.value_type, false);
  if (key_order == 0 && value_order == 0) {
    return;
  }
  rotation_context_ = NewMetadataContext(2);
  const auto new_square = [&](int64_t n) {
    return n > 0 ? ggml_new_tensor_2d(rotation_context_.get(), GGML_TYPE_F32, n, n) : nullptr;
  };
  key_rotation_ = new_square(key_order);
  value_rotation_ = new_square(value_order);
  rotation_buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(rotation_context_.get(), device_->buffer_type()));
  ESPALIER_CHECK(rotation_buffer_ != nullptr);
  for (ggml_tensor* rotation : {key_rotation_, value_rotation_}) {
    if (rotation != nullptr) {
      const std::vector<float> matrix = WalshHadamard(rotation->ne[0]);
      ggml_backend_tensor_set(rotation, matrix.data(), 0, matrix.size() * sizeof(float));
    }
  }
}

uint64_t KvCache::host_bytes() const {
  const uint64_t rows = slots_.size() * layers_.size() * sizeof(int64_t);
  const uint64_t rotations = rotation_buffer_ != nullptr ? ggml_backend_buffer_get_size(rotation_buffer_.get()) : 0;
  return slots_.size() * sizeof(SlotState) + rows + rotations;
}

Status KvCache::AddLayer(int il) {
  Layer& layer = layers_[LayerIndex(il)];
  if (layer.key != nullptr) {
    return Status::Ok();
  }
  Layer fresh;
  fresh.context = NewMetadataContext(2);
  const auto planes = [&](ggml_type type) {
    return ggml_new_tensor_3d(fresh.context.get(), type, hparams_.head_dim, n_slots() * stride_, hparams_.n_head_kv);
  };
  fresh.key = planes(options_.key_type);
  fresh.value = planes(options_.value_type);
  if (options_.measuring) {
    fresh.buffer.reset(ggml_backend_buft_alloc_buffer(device_->buffer_type(), 0));
    fresh.key->buffer = fresh.buffer.get();
    fresh.value->buffer = fresh.buffer.get();
  } else if (device_->is_host()) {
    const uint64_t key_bytes = ggml_nbytes(fresh.key);
    ESPALIER_ASSIGN_OR_RETURN(fresh.region, Region::Map(key_bytes + ggml_nbytes(fresh.value), Region::Pages::kSmall));
    fresh.buffer.reset(
        ggml_backend_dev_buffer_from_host_ptr(device_->dev(), fresh.region.data(), fresh.region.size(), 0));
    ESPALIER_CHECK(ggml_backend_tensor_alloc(fresh.buffer.get(), fresh.key, fresh.region.data()) ==
                   GGML_STATUS_SUCCESS);
    ESPALIER_CHECK(ggml_backend_tensor_alloc(fresh.buffer.get(), fresh.value, fresh.region.data() + key_bytes) ==
                   GGML_STATUS_SUCCESS);
  } else {
    fresh.buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(fresh.context.get(), device_->buffer_type()));
    if (fresh.buffer == nullptr) {
      return Status(ErrorCode::kIo, fmt::format("KV cache of layer {}: {} cannot be allocated on {}", il,
                                                FormatBytes(KvBytes(geometry_, capacity())), device_->name()));
    }
    ggml_backend_buffer_clear(fresh.buffer.get(), 0);
  }
  fresh.rows.assign(slots_.size(), 0);
  layer = std::move(fresh);
  return Status::Ok();
}

void KvCache::RemoveLayer(int il) { layers_[LayerIndex(il)] = Layer(); }

int KvCache::slot(int32_t sequence) const {
  const auto found = slot_of_.find(sequence);
  return found != slot_of_.end() ? found->second : kNoSlot;
}

int64_t KvCache::length(int32_t sequence) const {
  const int at = slot(sequence);
  return at != kNoSlot ? slots_[static_cast<size_t>(at)].length : 0;
}

int64_t KvCache::read_extent(int64_t length) const {
  const auto padded = static_cast<int64_t>(RoundUp(static_cast<uint64_t>(std::max<int64_t>(length, 1)), kKvPadding));
  return std::min(padded, stride_);
}

int KvCache::TakeSlot(int32_t sequence) {
  if (const int at = slot(sequence); at != kNoSlot) {
    return at;
  }
  const auto free = std::find_if(slots_.begin(), slots_.end(), [](const SlotState& s) { return !s.taken; });
  ESPALIER_CHECK(free != slots_.end());
  *free = {.taken = true, .length = 0};
  const int at = static_cast<int>(free - slots_.begin());
  slot_of_[sequence] = at;
  return at;
}

int64_t KvCache::Append(int32_t sequence) {
  const int at = slot(sequence);
  ESPALIER_CHECK(at != kNoSlot && used_ < capacity());
  SlotState& state = slots_[static_cast<size_t>(at)];
  ESPALIER_CHECK(state.length < stride_);
  ++used_;
  return at * stride_ + state.length++;
}

void KvCache::MarkWritten(int il, int64_t cell) {
  int64_t& rows = layers_[LayerIndex(il)].rows[static_cast<size_t>(cell / stride_)];
  ESPALIER_CHECK(rows >= cell % stride_);
  rows = std::max(rows, cell % stride_ + 1);
}

void KvCache::Truncate(int32_t sequence, int64_t length) {
  const int at = slot(sequence);
  if (at == kNoSlot) {
    return;
  }
  SlotState& state = slots_[static_cast<size_t>(at)];
  used_ -= std::max<int64_t>(state.length - length, 0);
  state.length = std::min(state.length, length);
  for (Layer& layer : layers_) {
    if (layer.key == nullptr) {
      continue;
    }
    int64_t& rows = layer.rows[static_cast<size_t>(at)];
    if (rows > length) {
      GiveBack(layer, at, length, rows);
      rows = length;
    }
  }
  if (length == 0) {
    state.taken = false;
    slot_of_.erase(sequence);
  }
}

bool KvCache::Complete(int il, int32_t sequence) const {
  const int at = slot(sequence);
  if (at == kNoSlot || slots_[static_cast<size_t>(at)].length == 0) {
    return true;
  }
  const Layer& layer = layers_[LayerIndex(il)];
  return layer.key != nullptr && layer.rows[static_cast<size_t>(at)] >= slots_[static_cast<size_t>(at)].length;
}

void KvCache::GiveBack(Layer& layer, int slot, int64_t keep, int64_t written) {
  if (layer.region.data() == nullptr) {
    return;
  }
  const uint64_t page = Region::PageSize();
  for (ggml_tensor* planes : {layer.key, layer.value}) {
    const auto planes_start = static_cast<uint64_t>(static_cast<std::byte*>(planes->data) - layer.region.data());
    for (int64_t head = 0; head < planes->ne[2]; ++head) {
      const uint64_t start = planes_start + static_cast<uint64_t>(head) * planes->nb[2] +
                             static_cast<uint64_t>(slot * stride_) * planes->nb[1];
      const uint64_t begin = start + static_cast<uint64_t>(keep) * planes->nb[1];
      const uint64_t end = RoundUp(start + static_cast<uint64_t>(written) * planes->nb[1], page);
      const uint64_t first_whole = std::min(RoundUp(begin, page), end);
      std::memset(layer.region.data() + begin, 0, first_whole - begin);
      layer.region.Discard(first_whole, end - first_whole);
    }
  }
}

uint64_t KvCache::committed_bytes() const {
  uint64_t bytes = 0;
  for (const Layer& layer : layers_) {
    if (layer.key == nullptr) {
      continue;
    }
    if (geometry_.commits_everything) {
      bytes += KvBytes(geometry_, geometry_.capacity);
      continue;
    }
    for (const auto& [sequence, slot] : slot_of_) {
      bytes += KvBytes(geometry_, layer.rows[static_cast<size_t>(slot)]);
    }
  }
  return bytes;
}

}  // namespace espalier
