// Profiles of a small model that does not exist, for tests.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "profile/profile.h"

namespace espalier::test {

inline MeasurementSet SomeSet(const std::string& hash = "0123456789abcdef0123456789abcdef", int64_t n_windows = 3) {
  return {.corpus = "a book.txt",
          .tokens_hash = hash,
          .protocol = "gptq",
          .window_tokens = 5,
          .n_windows = n_windows,
          .tokens_scored = 4 * n_windows,
          .key_type = "f16",
          .value_type = "q8_0",
          .ablation = Ablation::kMean,
          .means_hash = "00ff00ff00ff00ff00ff00ff00ff00ff"};
}

// Losses that no other (seed, window) has.
inline std::vector<WindowLoss> SomeLosses(int seed, int count, int first = 0) {
  std::vector<WindowLoss> losses;
  for (int i = first; i < first + count; ++i) {
    losses.push_back({1.0 / (3.0 + seed) + i, 100.0 + seed + i / 7.0});
  }
  return losses;
}

// The plan whose dropped blocks are the bits of `mask`.
inline Plan PlanOfMask(unsigned mask, int n_layer = 3) {
  Plan plan = Plan::Dense(n_layer);
  for (int i = 0; i < 2 * n_layer; ++i) {
    if ((mask >> i & 1) != 0) {
      plan.Drop({i});
    }
  }
  return plan;
}

// Three layers of width 4: two archives, one of them with rows that are not whole; rankings, means, agents, texts.
inline Profile SomeProfile() {
  Profile profile;
  profile.model_fingerprint = "00112233445566778899aabbccddeeff";
  profile.model_name = "a model";
  profile.quantization = "Q4_K_M";
  profile.n_layer = 3;
  profile.n_embd = 4;
  profile.ablation = Ablation::kMean;
  profile.means.n_embd = 4;
  for (int i = 0; i < 24; ++i) {
    profile.means.values.push_back(static_cast<float>(i) / 3.0f);
  }
  profile.statistics_set = "what the means are of";
  Archive& first = profile.ArchiveFor(SomeSet());
  for (unsigned mask = 0; mask < 20; ++mask) {
    const int count = 1 + static_cast<int>(mask % 3);
    EXPECT_TRUE(first.Add(PlanOfMask(mask), 0, SomeLosses(static_cast<int>(mask), count)));
  }
  Plan narrow = Plan::Dense(3);
  narrow.set_keep(BlockId::Ffn(1), 0.5);
  Archive& second = profile.ArchiveFor(SomeSet("ffff0000ffff0000ffff0000ffff0000", 1));
  EXPECT_TRUE(second.Add(narrow, 0, SomeLosses(77, 1)));
  profile.ArchiveFor(SomeSet("eeee0000ffff0000ffff0000ffff0000"));  // without rows
  profile.primary_set = SomeSet().Key();
  const std::vector<BlockId> order = {{5}, {0}, {4}, {1}, {3}, {2}};
  profile.Put({.method = "gsi", .drop_order = order, .score = {1, 2, 3, 4, 5, 0.1}});
  profile.Put({.method = "density", .kv_cells = 4096, .drop_order = order, .score = {1, 2, 3, 4, 5, 6}});
  profile.Put({.method = "random", .seed = UINT64_MAX, .drop_order = order});
  profile.Put(Agent{"shared", "measured", UINT64_MAX, 1, 4000, 9000, profile.model_fingerprint, {0.25F, -3, 1e30F}});
  profile.Put(Agent{"paper", "paper", 1, 1, 0, 0, "another model's", {7}});
  profile.Put(TextSketch{"a book.txt", SomeSet().tokens_hash, {1, 5, UINT64_MAX}});
  profile.Put(TextSketch{"tiny", "11", {}});
  return profile;
}

inline void ExpectSameRows(const Archive& found, const Archive& expected) {
  ASSERT_EQ(found.rows().size(), expected.rows().size());
  for (size_t i = 0; i < found.rows().size(); ++i) {
    EXPECT_EQ(found.rows()[i].plan, expected.rows()[i].plan) << i;
    EXPECT_EQ(found.rows()[i].windows, expected.rows()[i].windows) << i;
  }
}

inline bool SameRows(const Archive& a, const Archive& b) {
  if (a.rows().size() != b.rows().size()) {
    return false;
  }
  for (size_t i = 0; i < a.rows().size(); ++i) {
    if (a.rows()[i].plan != b.rows()[i].plan || a.rows()[i].windows != b.rows()[i].windows) {
      return false;
    }
  }
  return true;
}

inline bool SameProfile(const Profile& a, const Profile& b) {
  if (a.archives.size() != b.archives.size()) {
    return false;
  }
  for (size_t i = 0; i < a.archives.size(); ++i) {
    if (!(a.archives[i].set() == b.archives[i].set()) || a.archives[i].set().corpus != b.archives[i].set().corpus ||
        !SameRows(a.archives[i], b.archives[i])) {
      return false;
    }
  }
  return a.model_fingerprint == b.model_fingerprint && a.model_name == b.model_name &&
         a.quantization == b.quantization && a.n_layer == b.n_layer && a.n_embd == b.n_embd &&
         a.ablation == b.ablation && a.means == b.means && a.statistics_set == b.statistics_set &&
         a.primary_set == b.primary_set && a.rankings == b.rankings && a.agents == b.agents && a.texts == b.texts;
}

// Everything in `part` is in `whole` as it is there: windows may be missing at the end of rows, other things entirely.
inline void ExpectPartOf(const Profile& part, const Profile& whole) {
  EXPECT_EQ(part.model_fingerprint, whole.model_fingerprint);
  EXPECT_EQ(part.n_layer, whole.n_layer);
  EXPECT_EQ(part.n_embd, whole.n_embd);
  EXPECT_EQ(part.ablation, whole.ablation);
  EXPECT_EQ(part.primary_set, whole.primary_set);
  EXPECT_EQ(part.statistics_set, whole.statistics_set);
  EXPECT_TRUE(part.means.empty() || part.means == whole.means);
  for (const Ranking& ranking : part.rankings) {
    EXPECT_NE(std::find(whole.rankings.begin(), whole.rankings.end(), ranking), whole.rankings.end());
  }
  for (const Agent& agent : part.agents) {
    EXPECT_NE(std::find(whole.agents.begin(), whole.agents.end(), agent), whole.agents.end());
  }
  for (const TextSketch& text : part.texts) {
    EXPECT_NE(std::find(whole.texts.begin(), whole.texts.end(), text), whole.texts.end());
  }
  for (const Archive& archive : part.archives) {
    const Archive* expected = whole.FindArchive(archive.set());
    ASSERT_NE(expected, nullptr) << archive.set().Key();
    for (const ArchiveRow& row : archive.rows()) {
      const ArchiveRow* other = expected->Find(row.plan);
      ASSERT_NE(other, nullptr) << row.plan.ToText();
      ASSERT_LE(row.windows.size(), other->windows.size());
      EXPECT_TRUE(std::equal(row.windows.begin(), row.windows.end(), other->windows.begin())) << row.plan.ToText();
    }
  }
}

// An empty folder of its own for each test.
class ProfileFolderTest : public testing::Test {
 protected:
  ProfileFolderTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "espalier-profile-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~ProfileFolderTest() override {
    std::error_code ignored;
    std::filesystem::permissions(folder_, std::filesystem::perms::owner_all, ignored);
    std::filesystem::remove_all(folder_, ignored);
  }
  std::string Path(const std::string& name = "p.profile") const { return (folder_ / name).string(); }
  static std::string Content(const std::string& path) {
    auto content = ReadWholeFile(path, uint64_t{1} << 30);
    EXPECT_TRUE(content.ok()) << content.status().message();
    return content.ok() ? *content : "";
  }

  std::filesystem::path folder_;
};

}  // namespace espalier::test
