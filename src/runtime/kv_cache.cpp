#include "runtime/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
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
      layers_(options.shared ? 1 : static_cast<size_t>(hparams.n_layer)),
      cells_(static_cast<size_t>(geometry_.capacity)) {
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
  const uint64_t validity = cells_.size() * layers_.size();
  const uint64_t rotations = rotation_buffer_ != nullptr ? ggml_backend_buffer_get_size(rotation_buffer_.get()) : 0;
  return cells_.size() * sizeof(KvCell) + validity + rotations;
}

Status KvCache::AddLayer(int il) {
  Layer& layer = layers_[Slot(il)];
  if (layer.key != nullptr) {
    return Status::Ok();
  }
  Layer fresh;
  fresh.context = NewMetadataContext(2);
  fresh.key =
      ggml_new_tensor_3d(fresh.context.get(), options_.key_type, hparams_.head_dim, capacity(), hparams_.n_head_kv);
  fresh.value =
      ggml_new_tensor_3d(fresh.context.get(), options_.value_type, hparams_.head_dim, capacity(), hparams_.n_head_kv);
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
  fresh.valid.assign(cells_.size(), 0);
  layer = std::move(fresh);
  return Status::Ok();
}

void KvCache::RemoveLayer(int il) { layers_[Slot(il)] = Layer(); }

int64_t KvCache::read_extent() const {
  const auto padded = static_cast<int64_t>(RoundUp(static_cast<uint64_t>(std::max<int64_t>(high_, 1)), kKvPadding));
  return std::min(padded, capacity());
}

int64_t KvCache::Take(int32_t sequence, int32_t position) {
  while (cells_[static_cast<size_t>(lowest_free_)].sequence >= 0) {
    ++lowest_free_;
    ESPALIER_CHECK(lowest_free_ < capacity());
  }
  const int64_t cell = lowest_free_;
  cells_[static_cast<size_t>(cell)] = {sequence, position};
  ++used_;
  high_ = std::max(high_, cell + 1);
  return cell;
}

void KvCache::MarkWritten(int il, int64_t cell) {
  Layer& layer = layers_[Slot(il)];
  layer.valid[static_cast<size_t>(cell)] = 1;
  layer.committed_cells = std::max(layer.committed_cells, cell + 1);
}

void KvCache::Free(int32_t sequence, int32_t first_position) {
  for (int64_t c = 0; c < high_; ++c) {
    KvCell& cell = cells_[static_cast<size_t>(c)];
    if (cell.sequence == sequence && cell.position >= first_position) {
      cell = KvCell();
      --used_;
      lowest_free_ = std::min(lowest_free_, c);
      for (Layer& layer : layers_) {
        if (layer.key != nullptr) {
          layer.valid[static_cast<size_t>(c)] = 0;
        }
      }
    }
  }
  while (high_ > 0 && cells_[static_cast<size_t>(high_ - 1)].sequence < 0) {
    --high_;
  }
}

bool KvCache::Complete(int il, int32_t sequence) const {
  const Layer& layer = layers_[Slot(il)];
  for (int64_t c = 0; c < high_; ++c) {
    if (cells_[static_cast<size_t>(c)].sequence == sequence &&
        (layer.key == nullptr || layer.valid[static_cast<size_t>(c)] == 0)) {
      return false;
    }
  }
  return true;
}

void KvCache::Compact() {
  int64_t hole = 0;
  while (high_ > used_) {
    while (cells_[static_cast<size_t>(hole)].sequence >= 0) {
      ++hole;
    }
    MoveCell(high_ - 1, hole);
    while (high_ > 0 && cells_[static_cast<size_t>(high_ - 1)].sequence < 0) {
      --high_;
    }
  }
  lowest_free_ = used_;
  for (Layer& layer : layers_) {
    GiveTailBack(layer);
  }
}

void KvCache::MoveCell(int64_t from, int64_t to) {
  cells_[static_cast<size_t>(to)] = std::exchange(cells_[static_cast<size_t>(from)], KvCell());
  for (Layer& layer : layers_) {
    if (layer.key == nullptr) {
      continue;
    }
    const uint8_t valid = std::exchange(layer.valid[static_cast<size_t>(from)], uint8_t{0});
    layer.valid[static_cast<size_t>(to)] = valid;
    if (valid != 0) {
      MoveRows(layer.key, from, to);
      MoveRows(layer.value, from, to);
    }
  }
}

void KvCache::MoveRows(ggml_tensor* planes, int64_t from, int64_t to) const {
  std::vector<std::byte> row(planes->nb[1]);
  for (int64_t head = 0; head < planes->ne[2]; ++head) {
    const size_t plane = static_cast<size_t>(head) * planes->nb[2];
    const size_t source = plane + static_cast<size_t>(from) * planes->nb[1];
    const size_t target = plane + static_cast<size_t>(to) * planes->nb[1];
    ggml_backend_tensor_get(planes, row.data(), source, row.size());
    ggml_backend_tensor_set(planes, row.data(), target, row.size());
  }
}

void KvCache::GiveTailBack(Layer& layer) {
  if (layer.region.data() == nullptr || layer.committed_cells <= high_) {
    return;
  }
  if (high_ == 0) {
    layer.region.Discard(0, layer.region.size());
    layer.committed_cells = 0;
    return;
  }
  const uint64_t page = Region::PageSize();
  for (ggml_tensor* planes : {layer.key, layer.value}) {
    const auto planes_start = static_cast<uint64_t>(static_cast<std::byte*>(planes->data) - layer.region.data());
    for (int64_t head = 0; head < planes->ne[2]; ++head) {
      const uint64_t plane = planes_start + static_cast<uint64_t>(head) * planes->nb[2];
      const uint64_t begin = plane + static_cast<uint64_t>(high_) * planes->nb[1];
      const uint64_t written = plane + static_cast<uint64_t>(layer.committed_cells) * planes->nb[1];
      const uint64_t end = std::min(RoundUp(written, page), plane + planes->nb[2]);
      // A page shared with rows that stay (ours, or the next plane's first) is zeroed, not discarded.
      const uint64_t first_whole = std::min(RoundUp(begin, page), end);
      const uint64_t last_whole = std::max(RoundDown(end, page), first_whole);
      std::memset(layer.region.data() + begin, 0, first_whole - begin);
      layer.region.Discard(first_whole, last_whole - first_whole);
      std::memset(layer.region.data() + last_whole, 0, end - last_whole);
    }
  }
  layer.committed_cells = high_;
}

uint64_t KvCache::committed_bytes() const {
  uint64_t bytes = 0;
  for (const Layer& layer : layers_) {
    if (layer.key != nullptr) {
      bytes += KvBytes(geometry_, layer.committed_cells);
    }
  }
  return bytes;
}

}  // namespace espalier
