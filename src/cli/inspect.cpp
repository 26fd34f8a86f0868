// espalier inspect: what is in a model file, block by block.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/options.h"
#include "model/quote.h"

namespace espalier {
namespace {

struct InspectOptions {
  ModelOption model;
  EngineFlags engine;
  bool json = false;
};

void BindInspect(CLI::App& app, InspectOptions& o) {
  AddModelOption(app, o.model);
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

// "Q4_K, Q6_K": the types of the group's matrices; one-dimensional tensors are always F32 and say nothing.
std::string TypesOf(const TensorGroup& group) {
  std::vector<std::string> types;
  for (const TensorInfo* tensor : group.by_role) {
    if (tensor != nullptr && tensor->n_dims > 1) {
      types.emplace_back(TensorTypeName(*tensor));
    }
  }
  std::sort(types.begin(), types.end());
  types.erase(std::unique(types.begin(), types.end()), types.end());
  return fmt::format("{}", fmt::join(types, ", "));
}

uint64_t ParametersOf(const Model& model) {
  uint64_t n = 0;
  for (const TensorInfo& tensor : model.gguf().tensors()) {
    n += static_cast<uint64_t>(tensor.ne[0] * tensor.ne[1] * tensor.ne[2] * tensor.ne[3]);
  }
  return n;
}

uint64_t WeightBytes(const Model& model) {
  uint64_t bytes = model.globals().file_bytes;
  for (int b = 0; b < model.n_block(); ++b) {
    bytes += model.block({b}).file_bytes;
  }
  return bytes;
}

Json ReportOf(const Model& model, const MemoryModel& memory, const InspectOptions& o) {
  const HyperParameters& h = model.hparams();
  const uint64_t weights = WeightBytes(model);
  const auto group = [&](const std::string& name, const TensorGroup& tensors, uint64_t resident) {
    return Json{{"block", name},
                {"file_bytes", tensors.file_bytes},
                {"resident_bytes", resident},
                {"share", static_cast<double>(tensors.file_bytes) / static_cast<double>(weights)},
                {"types", TypesOf(tensors)}};
  };
  Json report = {{"model", ModelJson(model)},
                 {"parameters", ParametersOf(model)},
                 {"files", model.gguf().paths().size()},
                 {"file_bytes", model.gguf().source().size()},
                 {"weight_bytes", weights},
                 {"context_tokens", h.n_ctx_train},
                 {"embedding_length", h.n_embd},
                 {"feed_forward_length", h.n_ff},
                 {"heads", h.n_head},
                 {"kv_heads", h.n_head_kv},
                 {"head_dim", h.head_dim},
                 {"vocabulary_tokens", h.n_vocab},
                 {"tied_output", h.tied_output},
                 {"rope_freq_base", h.rope.freq_base},
                 {"kv_types", {o.engine.key_type, o.engine.value_type}},
                 {"kv_bytes_per_cell_of_a_layer", memory.kv.bytes_per_cell()},
                 {"kv_bytes_per_cell", memory.kv.bytes_per_cell() * static_cast<uint64_t>(h.n_layer)}};
  report["globals"] = group("globals", model.globals(), memory.global_bytes);
  report["blocks"] = Json::array();
  for (int b = 0; b < model.n_block(); ++b) {
    Json block = group(BlockName({b}), model.block({b}), memory.block_bytes[static_cast<size_t>(b)]);
    block["kv_bytes_per_cell"] = BlockId{b}.is_attention() ? memory.kv.bytes_per_cell() : 0;
    report["blocks"].push_back(block);
  }
  return report;
}

void PrintRow(const std::string& name, const TensorGroup& group, const std::array<uint64_t, 3>& figures) {
  const auto [resident, total, kv] = figures;
  fmt::print("{:<8} {:>12} {:>12} {:>6.2f}% {:>11}  {}\n", name, group.file_bytes, resident,
             100 * static_cast<double>(group.file_bytes) / static_cast<double>(total),
             kv == 0 ? "" : fmt::format("{}", kv), TypesOf(group));
}

void PrintText(const Model& model, const MemoryModel& memory) {
  const HyperParameters& h = model.hparams();
  const uint64_t weights = WeightBytes(model);
  const size_t files = model.gguf().paths().size();
  fmt::print("{} ({}{}), {} {}\n", Printable(model.display_name()), model.path(),
             files > 1 ? fmt::format(", first of {} files", files) : "", model.architecture().name,
             model.quantization());
  fmt::print("{:.2f} M parameters, {} of weights; {} layers, {} blocks\n",
             static_cast<double>(ParametersOf(model)) / 1e6, FormatBytes(weights), h.n_layer, model.n_block());
  fmt::print("embedding {}, feed-forward {}, {} heads of {} ({} KV heads), vocabulary {}, context {}, output {}\n\n",
             h.n_embd, h.n_ff, h.n_head, h.head_dim, h.n_head_kv, h.n_vocab, h.n_ctx_train,
             h.tied_output ? "tied" : "of its own");
  fmt::print("{:<8} {:>12} {:>12} {:>7} {:>11}  {}\n", "block", "file bytes", "resident", "share", "KV B/cell",
             "types");
  PrintRow("globals", model.globals(), {memory.global_bytes, weights, 0});
  for (int b = 0; b < model.n_block(); ++b) {
    PrintRow(BlockName({b}), model.block({b}),
             {memory.block_bytes[static_cast<size_t>(b)], weights,
              BlockId{b}.is_attention() ? memory.kv.bytes_per_cell() : 0});
  }
}

Status Inspect(const InspectOptions& o) {
  ESPALIER_ASSIGN_OR_RETURN(const auto model, o.model.Open());
  // A small context: per-cell figures do not depend on it.
  ESPALIER_ASSIGN_OR_RETURN(const EngineOptions options, o.engine.Read(std::min(model->hparams().n_ctx_train, 256)));
  ESPALIER_ASSIGN_OR_RETURN(const MemoryModel memory, MeasureMemoryModel(model, options));
  if (o.json) {
    PrintJson(ReportOf(*model, memory, o));
  } else {
    PrintText(*model, memory);
  }
  return Status::Ok();
}

}  // namespace

void AddInspectCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* inspect = app.add_subcommand("inspect", "Architecture of a model, and the bytes of each block");
  inspect->footer(
      "Examples:\n  espalier inspect reference\n  espalier inspect model.gguf -ctk q8_0 -ctv q8_0 --json\n");
  AddCommand<InspectOptions>(inspect, commands, BindInspect, Inspect);
}

}  // namespace espalier
