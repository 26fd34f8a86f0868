#include "runtime/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>

#include "base/bytes.h"
#include "base/check.h"

namespace espalier {
namespace {

// Tensors in our own regions start on cache lines, as ggml's CPU buffers do.
constexpr uint64_t kTensorAlignment = 64;
// Device memory is filled through a window of this size; buffer types that rewrite need the whole tensor at once.
constexpr uint64_t kUploadWindow = 8 * kMiB;
// Each loader holds staging for the largest tensor; four saturate the memory of the machines we know.
constexpr int kMaxLoaders = 4;
// Starting a thread costs about as much as loading this.
constexpr uint64_t kBytesWorthAThread = 256 * kKiB;

ggml_tensor* NewTensor(ggml_context* context, const TensorInfo& info) {
  ggml_tensor* tensor = ggml_new_tensor(context, info.type, info.n_dims, info.ne.data());
  ggml_set_name(tensor, info.name.c_str());
  return tensor;
}

}  // namespace

GgmlContext NewMetadataContext(size_t n_tensors) {
  return GgmlContext(ggml_init({ggml_tensor_overhead() * (n_tensors + 1), nullptr, /*no_alloc=*/true}));
}

WeightStore::WeightStore(std::shared_ptr<const Model> model, const Device* device, const WeightOptions& options)
    : model_(std::move(model)), device_(device), options_(options) {
  blocks_.resize(static_cast<size_t>(model_->n_block()));
  tensors_.blocks.resize(blocks_.size());
  for (int i = 0; i < model_->n_block(); ++i) {
    PlaceGroup(model_->block({i}), blocks_[static_cast<size_t>(i)]);
    SizeGroup(blocks_[static_cast<size_t>(i)]);
  }
  PlaceGroup(model_->globals(), globals_);
  if (model_->hparams().tied_output && options_.copy_tied_head) {
    const TensorInfo* embedding = model_->globals().get(TensorRole::kTokenEmbedding);
    if (ggml_backend_buffer_type_t type = ChooseBufferType(*embedding); type != ordinary()) {
      globals_.places.push_back({TensorRole::kOutput, embedding, type, &model_->gguf().source()});
    }
  }
  if (options_.means != nullptr) {
    PlaceMeans();
  }
  SizeGroup(globals_);
}

void WeightStore::PlaceMeans() {
  const auto bytes = std::as_bytes(std::span(options_.means->values));
  means_source_ = std::make_unique<MemorySource>(bytes);
  means_info_ = {"means", GGML_TYPE_F32, 2, {options_.means->n_embd, model_->n_block(), 1, 1}, 0, bytes.size()};
  globals_.places.push_back({TensorRole::kCount, &means_info_, ordinary(), means_source_.get()});
}

ggml_tensor*& WeightStore::SlotOf(const Group& group, const Place& place, ModelTensors& tensors) const {
  if (place.role == TensorRole::kCount) {
    return tensors.means;
  }
  TensorSet& set = &group == &globals_ ? tensors.globals : tensors.blocks[static_cast<size_t>(&group - blocks_.data())];
  return set[static_cast<size_t>(place.role)];
}

// The way libllama decides: the first rewriting buffer type in which the device can multiply with this weight.
ggml_backend_buffer_type_t WeightStore::ChooseBufferType(const TensorInfo& info) const {
  if (!options_.repack || info.n_dims != 2) {
    return ordinary();
  }
  for (ggml_backend_buffer_type_t type : device_->repacking_buffer_types()) {
    const GgmlContext context = NewMetadataContext(4);
    ggml_tensor* weight = NewTensor(context.get(), info);
    ggml_tensor* input = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, info.ne[0], 512);
    ggml_tensor* product = ggml_mul_mat(context.get(), weight, input);
    const GgmlBuffer empty(ggml_backend_buft_alloc_buffer(type, 0));
    weight->buffer = empty.get();
    if (ggml_backend_dev_supports_op(device_->dev(), product)) {
      return type;
    }
  }
  return ordinary();
}

void WeightStore::PlaceGroup(const TensorGroup& tensors, Group& group) const {
  for (int r = 0; r < kTensorRoleCount; ++r) {
    const auto role = static_cast<TensorRole>(r);
    if (const TensorInfo* info = tensors.get(role)) {
      // Rows of the embedding are looked up, which rewritten layouts cannot do.
      const bool multiplied = role != TensorRole::kTokenEmbedding;
      group.places.push_back({role, info, multiplied ? ChooseBufferType(*info) : ordinary(), &model_->gguf().source()});
    }
  }
}

void WeightStore::SizeGroup(Group& group) const {
  std::map<ggml_backend_buffer_type_t, std::vector<const Place*>> by_type;
  for (const Place& place : group.places) {
    by_type[place.buffer_type].push_back(&place);
  }
  group.bytes = 0;
  group.staging_bytes = 0;
  for (const auto& [type, places] : by_type) {
    const bool in_place = device_->is_host() && type == ordinary();
    uint64_t size = 0;
    if (in_place) {
      for (const Place* place : places) {
        size += RoundUp(place->info->bytes, kTensorAlignment);
      }
    } else {
      const GgmlContext context = NewMetadataContext(places.size());
      for (const Place* place : places) {
        NewTensor(context.get(), *place->info);
        group.staging_bytes = std::max(
            group.staging_bytes, type == ordinary() ? std::min(place->info->bytes, kUploadWindow) : place->info->bytes);
      }
      size = ggml_backend_alloc_ctx_tensors_from_buft_size(context.get(), type);
    }
    group.bytes += device_->is_host() ? RoundUp(size, Region::PageSize()) : size;
  }
  group.staging_bytes *= static_cast<uint64_t>(n_loaders());
}

Status WeightStore::Load(std::span<const BlockId> blocks) {
  std::vector<Task> tasks;
  std::vector<BlockId> wanted;
  Status status;
  for (const BlockId block : blocks) {
    Group& group = blocks_[static_cast<size_t>(block.index)];
    if (group.resident) {
      continue;
    }
    status = Allocate(group, tasks);
    if (!status.ok()) {
      Clear(group);
      status = Status(status.code(), fmt::format("block {}: {}", BlockName(block), status.message()));
      break;
    }
    wanted.push_back(block);
  }
  const Status filled = FillAll(tasks);
  for (const Task& task : tasks) {
    SlotOf(*task.group, *task.place, tensors_) = task.tensor;
  }
  for (const BlockId block : wanted) {
    if (!resident(block)) {
      if (status.ok()) {
        status = Status(filled.code(), fmt::format("block {}: {}", BlockName(block), filled.message()));
      }
      Release(block);
    }
  }
  return status;
}

void WeightStore::Release(BlockId block) {
  tensors_.blocks[static_cast<size_t>(block.index)] = {};
  Clear(blocks_[static_cast<size_t>(block.index)]);
}

void WeightStore::Clear(Group& group) {
  group.buffers.clear();
  group.region = Region();
  group.contexts.clear();
  group.resident = false;
}

Status WeightStore::LoadGlobals() {
  if (globals_.resident) {
    return Status::Ok();
  }
  std::vector<Task> tasks;
  ESPALIER_RETURN_IF_ERROR(Allocate(globals_, tasks));
  ESPALIER_RETURN_IF_ERROR(FillAll(tasks));
  for (const Task& task : tasks) {
    SlotOf(globals_, *task.place, tensors_) = task.tensor;
  }
  return Status::Ok();
}

Status WeightStore::Allocate(Group& group, std::vector<Task>& tasks) const {
  std::map<ggml_backend_buffer_type_t, ggml_context*> contexts;
  uint64_t region_size = 0;
  const size_t first_task = tasks.size();
  for (const Place& place : group.places) {
    ggml_context*& context = contexts[place.buffer_type];
    if (context == nullptr) {
      group.contexts.push_back(NewMetadataContext(group.places.size()));
      context = group.contexts.back().get();
    }
    tasks.push_back({&group, &place, NewTensor(context, *place.info)});
    region_size += InPlace(place) ? RoundUp(place.info->bytes, kTensorAlignment) : 0;
  }
  for (const auto& [type, context] : contexts) {
    if (device_->is_host() && type == ordinary()) {
      auto region = Region::Map(region_size, Region::Pages::kHuge);
      if (!region.ok()) {
        tasks.resize(first_task);
        return region.status();
      }
      group.region = std::move(*region);
      group.buffers.emplace_back(
          ggml_backend_dev_buffer_from_host_ptr(device_->dev(), group.region.data(), group.region.size(), 0));
    } else {
      group.buffers.emplace_back(ggml_backend_alloc_ctx_tensors_from_buft(context, type));
      if (group.buffers.back() == nullptr) {
        tasks.resize(first_task);
        return Status(ErrorCode::kIo, fmt::format("{} cannot be allocated in {}: {}", FormatBytes(group.bytes),
                                                  ggml_backend_buft_name(type), TakeLastGgmlError()));
      }
    }
    ggml_backend_buffer_t buffer = group.buffers.back().get();
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    uint64_t offset = 0;
    for (size_t i = first_task; i < tasks.size(); ++i) {
      if (tasks[i].place->buffer_type == type && InPlace(*tasks[i].place)) {
        ESPALIER_CHECK(ggml_backend_tensor_alloc(buffer, tasks[i].tensor, group.region.data() + offset) ==
                       GGML_STATUS_SUCCESS);
        offset += RoundUp(tasks[i].place->info->bytes, kTensorAlignment);
      }
    }
  }
  group.resident = true;  // taken back by FillAll if its data cannot be had
  return Status::Ok();
}

int WeightStore::n_loaders() const {
  // A device behind a connection is filled in order.
  return device_->is_host() ? std::min(device_->n_threads(), kMaxLoaders) : 1;
}

Status WeightStore::FillAll(std::span<const Task> tasks) const {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  Status first_error;  // guarded by mutex, and so is Group::resident
  const auto work = [&] {
    Region staging;  // kept from tensor to tensor: it stays in the processor's cache
    for (size_t i = next++; i < tasks.size(); i = next++) {
      const Status status = Fill(tasks[i], staging);
      if (!status.ok()) {
        const std::lock_guard lock(mutex);
        tasks[i].group->resident = false;
        first_error = first_error.ok() ? status : first_error;
      }
    }
  };
  uint64_t bytes = 0;
  for (const Task& task : tasks) {
    bytes += task.place->info->bytes;
  }
  std::vector<std::thread> others;
  for (int i = 1; i < n_loaders() && bytes > kBytesWorthAThread * static_cast<uint64_t>(i); ++i) {
    others.emplace_back(work);
  }
  work();
  for (std::thread& thread : others) {
    thread.join();
  }
  return first_error;
}

Status WeightStore::Fill(const Task& task, Region& staging) const {
  const TensorInfo& info = *task.place->info;
  const ByteSource& source = *task.place->source;
  ESPALIER_CHECK(ggml_nbytes(task.tensor) == info.bytes);
  if (InPlace(*task.place)) {
    ESPALIER_RETURN_IF_ERROR(source.ReadAt(info.offset, {static_cast<std::byte*>(task.tensor->data), info.bytes}));
  } else {
    const bool rewritten = task.place->buffer_type != ordinary();
    const uint64_t window = rewritten ? info.bytes : std::min(info.bytes, kUploadWindow);
    if (staging.size() < window) {
      staging = Region();
      ESPALIER_ASSIGN_OR_RETURN(staging, Region::Map(window, Region::Pages::kSmall));
    }
    if (device_->is_host()) {
      PopulatePages(task.tensor->data, info.bytes);
    }
    for (uint64_t at = 0; at < info.bytes; at += window) {
      const uint64_t n = std::min(window, info.bytes - at);
      ESPALIER_RETURN_IF_ERROR(source.ReadAt(info.offset + at, {staging.data(), n}));
      ggml_backend_tensor_set(task.tensor, staging.data(), at, n);
    }
  }
  if (options_.drop_page_cache) {
    source.DropCache(info.offset, info.bytes);
  }
  return Status::Ok();
}

uint64_t WeightStore::resident_bytes() const {
  uint64_t bytes = globals_.resident ? globals_.bytes : 0;
  for (const Group& group : blocks_) {
    bytes += group.resident ? group.bytes : 0;
  }
  return bytes;
}

uint64_t WeightStore::page_cache_bytes() const {
  const ByteSource& source = model_->gguf().source();
  return source.CachedBytes(0, source.size());
}

const ModelTensors& WeightStore::MeasuringTensors() {
  if (measuring_context_ != nullptr) {
    return measuring_;
  }
  size_t n = globals_.places.size();
  for (const Group& group : blocks_) {
    n += group.places.size();
  }
  measuring_context_ = NewMetadataContext(n);
  std::map<ggml_backend_buffer_type_t, ggml_backend_buffer_t> empty;
  // What a rewriting buffer type hangs on a tensor (its kernels, which size the backend's scratch), by type and shape.
  std::map<std::tuple<ggml_backend_buffer_type_t, ggml_type, int64_t, int64_t>, void*> extras;
  const auto extra_of = [&](ggml_backend_buffer_type_t type, const TensorInfo& info) {
    auto [found, is_new] = extras.try_emplace({type, info.type, info.ne[0], info.ne[1]}, nullptr);
    if (is_new) {
      // Address space only: nothing is written to it.
      const GgmlContext context = NewMetadataContext(1);
      ggml_tensor* tensor = NewTensor(context.get(), info);
      const GgmlBuffer buffer(ggml_backend_alloc_ctx_tensors_from_buft(context.get(), type));
      found->second = buffer != nullptr ? tensor->extra : nullptr;
    }
    return found->second;
  };
  const auto add = [&](const Group& group) {
    for (const Place& place : group.places) {
      ggml_tensor* tensor = NewTensor(measuring_context_.get(), *place.info);
      ggml_backend_buffer_t& buffer = empty[place.buffer_type];
      if (buffer == nullptr) {
        measuring_buffers_.emplace_back(ggml_backend_buft_alloc_buffer(place.buffer_type, 0));
        buffer = measuring_buffers_.back().get();
      }
      tensor->buffer = buffer;  // ggml's allocator then takes it for allocated elsewhere
      if (place.buffer_type != ordinary()) {
        tensor->extra = extra_of(place.buffer_type, *place.info);
      }
      SlotOf(group, place, measuring_) = tensor;
    }
  };
  measuring_.blocks.resize(blocks_.size());
  for (const Group& group : blocks_) {
    add(group);
  }
  add(globals_);
  return measuring_;
}

}  // namespace espalier
