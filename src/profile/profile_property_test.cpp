// Whatever a profile holds, its file holds the same, and so does its journal.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "profile/journal.h"
#include "profile/profile_file.h"
#include "profile/profile_for_test.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

class ProfileProperty : public ProfileFolderTest, public testing::WithParamInterface<uint32_t> {
 protected:
  int Below(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }
  bool OneIn(uint32_t n) { return random_() % n == 0; }
  uint64_t Seed() { return OneIn(4) ? UINT64_MAX : uint64_t{random_()} << Below(32); }
  // Finite, of either sign and of any size.
  double Number() {
    const double share = static_cast<double>(random_()) / 4294967296.0 - 0.5;
    return OneIn(8) ? 0 : std::ldexp(share, Below(600) - 300);
  }
  std::string Name() {
    static const std::vector<std::string> parts = {"a", "B 7", "/", "\"", "\n", "\u20ac", "\xff", "=", "."};
    std::string name = "n";
    while (!OneIn(4)) {
      name += parts[random_() % parts.size()];
    }
    return name;
  }
  std::string Hash() {
    std::string hash(32, '0');
    std::generate(hash.begin(), hash.end(), [&] { return "0123456789abcdef"[random_() % 16]; });
    return hash;
  }

  MeasurementSet SomeSet() {
    MeasurementSet set;
    set.corpus = Name();
    set.tokens_hash = Hash();
    set.protocol = OneIn(2) ? "gptq" : "llama";
    set.window_tokens = 1 + Below(4096);
    set.n_windows = 1 + Below(5);
    set.tokens_scored = set.n_windows * set.window_tokens;
    set.key_type = OneIn(2) ? "f16" : "q8_0";
    set.value_type = OneIn(2) ? "f16" : "q4_0";
    set.ablation = OneIn(2) ? Ablation::kZero : Ablation::kMean;
    set.means_hash = set.ablation == Ablation::kMean ? Hash() : "";
    return set;
  }

  Plan SomePlan(int n_layer) {
    Plan plan = Plan::Dense(n_layer);
    for (int block = 0; block < plan.n_block(); ++block) {
      if (OneIn(2)) {
        plan.set_keep({block}, OneIn(2) ? 0 : static_cast<double>(1 + Below(16383)) / 16384);
      }
    }
    return plan;
  }

  std::vector<WindowLoss> SomeLosses(int64_t count) {
    std::vector<WindowLoss> losses(static_cast<size_t>(count));
    std::generate(losses.begin(), losses.end(), [&] { return WindowLoss{Number(), Number()}; });
    return losses;
  }

  Ranking SomeRanking(int n_block) {
    constexpr const char* kMethods[] = {"gsi", "one-shot", "shortgpt", "mha-drop", "ffn-skip", "random", "density"};
    Ranking ranking;
    ranking.method = kMethods[random_() % std::size(kMethods)];
    ranking.kv_cells = ranking.method == "density" ? 1 + Below(100000) : 0;
    ranking.seed = ranking.method == "random" ? Seed() : 0;
    ranking.drop_order.resize(static_cast<size_t>(n_block));
    for (int i = 0; i < n_block; ++i) {
      ranking.drop_order[static_cast<size_t>(i)] = {i};
    }
    std::shuffle(ranking.drop_order.begin(), ranking.drop_order.end(), random_);
    for (int i = 0; i < n_block && ranking.method != "random"; ++i) {
      ranking.score.push_back(Number());
    }
    return ranking;
  }

  Agent SomeAgent() {
    Agent agent{
        OneIn(2) ? "paper" : "shared", OneIn(2) ? "paper" : "measured", Seed(), Below(3), Below(9000), 0, Hash(), {}};
    agent.planned = agent.episodes + Below(100);
    for (int n = 1 + Below(50); n > 0; --n) {
      agent.parameters.push_back(static_cast<float>(std::clamp(Number(), -1e30, 1e30)));
    }
    return agent;
  }

  Profile OfSomeModel() {
    Profile profile;
    profile.model_fingerprint = Hash();
    profile.model_name = Name();
    profile.quantization = OneIn(2) ? "Q4_K_M" : "";
    profile.n_layer = 1 + Below(12);
    profile.n_embd = 1 + Below(20);
    return profile;
  }

  void AddMeasurements(Profile* profile) {
    for (int n = Below(4); n > 0; --n) {
      Archive& archive = profile->ArchiveFor(SomeSet());
      for (int rows = Below(20); rows > 0; --rows) {
        archive.Add(SomePlan(profile->n_layer), 0, SomeLosses(1 + Below(static_cast<int>(archive.set().n_windows))));
      }
    }
  }

  Profile SomeProfile() {
    Profile profile = OfSomeModel();
    const int n_block = 2 * profile.n_layer;
    if (OneIn(2)) {
      profile.ablation = Ablation::kMean;
      profile.means.n_embd = profile.n_embd;
      for (int64_t i = 0; i < n_block * profile.n_embd; ++i) {
        profile.means.values.push_back(static_cast<float>(std::clamp(Number(), -1e30, 1e30)));
      }
      profile.statistics_set = SomeSet().Key();
    }
    AddMeasurements(&profile);
    if (!profile.archives.empty() && OneIn(2)) {
      profile.primary_set = profile.archives[random_() % profile.archives.size()].set().Key();
    }
    for (int n = Below(5); n > 0; --n) {
      profile.Put(SomeRanking(n_block));
    }
    for (int n = Below(4); n > 0; --n) {
      profile.Put(SomeAgent());
    }
    for (int n = Below(4); n > 0; --n) {
      TextSketch text{Name(), Hash(), {}};
      for (int runs = Below(30); runs > 0; --runs) {
        text.runs.push_back(Seed());
      }
      std::sort(text.runs.begin(), text.runs.end());
      profile.Put(std::move(text));
    }
    return profile;
  }

  Result<Profile> Read(const std::string& content, RecoveryNotes* notes) {
    return ParseProfile(MemorySource(std::as_bytes(std::span(content)), "p"), notes);
  }

  std::mt19937 random_{GetParam()};
};

TEST_P(ProfileProperty, AnyProfileIsReadAsTheSame) {
  for (int i = 0; i < 5; ++i) {
    const Profile profile = SomeProfile();
    const Status written = WriteProfile(profile, Path());
    ASSERT_TRUE(written.ok()) << written.message();
    RecoveryNotes notes;
    const std::string content = Content(Path());
    const auto read = Read(content, &notes);
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_TRUE(notes.empty()) << notes.front();
    EXPECT_TRUE(SameProfile(*read, profile));
    ASSERT_TRUE(WriteProfile(*read, Path()).ok());
    EXPECT_EQ(Content(Path()), content) << "the same bytes, too";
  }
}

// A journal of the same measurements, in any order of plans and in as many steps as there were.
TEST_P(ProfileProperty, AJournalOfItsMeasurementsIsReadAsTheSame) {
  Profile profile = OfSomeModel();
  AddMeasurements(&profile);
  std::erase_if(profile.archives, [](const Archive& archive) { return archive.rows().empty(); });
  const auto journal = Journal::Open(Path("j"));
  ASSERT_TRUE(journal.ok()) << journal.status().message();
  ASSERT_TRUE((*journal)->Start(profile, 0).ok());
  uint64_t records = 0;
  for (const Archive& archive : profile.archives) {
    for (const ArchiveRow& row : archive.rows()) {
      for (size_t first = 0; first < row.windows.size();) {
        const size_t count = 1 + random_() % (row.windows.size() - first);
        const auto losses = std::span(row.windows).subspan(first, count);
        ASSERT_TRUE((*journal)->Append(archive.set(), row.plan, static_cast<int64_t>(first), losses).ok());
        first += count;
        ++records;
      }
    }
  }
  Profile replayed = profile;
  replayed.archives.clear();
  RecoveryNotes notes;
  const std::string content = Content(Path("j"));
  const auto replay = ReplayJournal(std::as_bytes(std::span(content)), "j", &replayed, &notes);
  ASSERT_TRUE(replay.ok()) << replay.status().message();
  EXPECT_TRUE(notes.empty()) << notes.front();
  EXPECT_EQ(replay->measurements, records);
  EXPECT_EQ(replay->sound_bytes, content.size());
  EXPECT_FALSE(replay->damaged);
  EXPECT_TRUE(SameProfile(replayed, profile));
}

INSTANTIATE_TEST_SUITE_P(Seeds, ProfileProperty, testing::Range(1u, 31u));

}  // namespace
}  // namespace espalier
