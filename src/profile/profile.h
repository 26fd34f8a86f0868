// The profile: everything that was learned for one model. One object in memory, one file on disk (profile_file.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/block.h"
#include "model/block_means.h"
#include "profile/archive.h"
#include "profile/text_sketch.h"

namespace espalier {

// An order in which blocks are dropped, and how it came about.
struct Ranking {
  std::string method;                    // "gsi", "one-shot", "shortgpt", "mha-drop", "ffn-skip", "random", "density"
  int64_t kv_cells = 0;                  // density: the workload's KV cells it was made for; 0 elsewhere
  uint64_t seed = 0;                     // random
  std::vector<BlockId> drop_order = {};  // every block once, the first to go first
  // By block index, what the method found: gsi and density: loss of the plan after the block was dropped (importance
  // as the RAP paper uses it); one-shot: loss when it alone is dropped; shortgpt, mha-drop, ffn-skip: 1 - cosine of
  // input and output; random: nothing (empty).
  std::vector<double> score = {};

  friend bool operator==(const Ranking&, const Ranking&) = default;
};

// A learned policy (rl/): what its network computes with, and what it was taught. A record to keep; rl/ gives it
// meaning.
struct Agent {
  std::string network;            // "paper", "shared"
  std::string reward;             // "paper", "measured"
  uint64_t seed = 0;              // agents of one network and reward are told apart by it
  int64_t state_version = 0;      // of the numbers it sees
  int64_t episodes = 0;           // it was trained on
  int64_t planned = 0;            // episodes at the end of its training; more than `episodes`: it was interrupted
  std::string trained_on = {};    // fingerprint of the model; another one's where it was taken over
  std::vector<float> parameters;  // of the network

  friend bool operator==(const Agent&, const Agent&) = default;
};

struct Profile {
  std::string model_fingerprint;  // model/fingerprint.h
  std::string model_name;         // for people
  std::string quantization;
  int n_layer = 0;
  int64_t n_embd = 0;

  Ablation ablation = Ablation::kZero;  // what plans of this profile are served with
  BlockMeans means;                     // present whenever they were measured, whatever `ablation` says
  // Key() of what the means and the rankings by influence were measured on (ablation zero, whatever is served); empty:
  // not known.
  std::string statistics_set;
  std::vector<Archive> archives;  // at most one per set
  std::string primary_set;        // Key() of the set that policies look plans up in; empty: none
  std::vector<Ranking> rankings;
  std::vector<Agent> agents;
  std::vector<TextSketch> texts;  // that measurements were made on, one for each tokens_hash

  // nullptr where there is none.
  const Archive* primary() const;
  const Archive* FindArchive(const MeasurementSet& set) const;
  // Adds an empty one where there is none. The reference is valid until the next call.
  Archive& ArchiveFor(const MeasurementSet& set);
  // density: the one whose kv_cells are nearest (by ratio).
  const Ranking* FindRanking(std::string_view method, int64_t kv_cells = 0) const;
  // Replaces one of equal method, kv_cells and seed.
  void Put(Ranking ranking);
  // Replaces one of equal network, reward and seed.
  void Put(Agent agent);
  // Replaces one of equal tokens_hash.
  void Put(TextSketch text);
};

}  // namespace espalier
