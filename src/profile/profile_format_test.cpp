// The GGUF: what is written is read, and damage stays local.
#include <gtest/gtest.h>

#include "model/gguf_file.h"
#include "profile/profile_file.h"
#include "profile/profile_for_test.h"
#include "profile/profile_layout.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

class ProfileFormat : public ProfileFolderTest {
 protected:
  std::string Written(const Profile& profile) {
    const Status status = WriteProfile(profile, Path());
    EXPECT_TRUE(status.ok()) << status.message();
    return Content(Path());
  }
};

Result<Profile> Parse(const std::string& content, RecoveryNotes* notes) {
  notes->clear();
  return ParseProfile(MemorySource(std::as_bytes(std::span(content)), "p"), notes);
}

// With a checksum that its header, which was changed, has.
std::string Resealed(std::string content) {
  auto bytes = std::as_writable_bytes(std::span(content));
  const auto gguf = GgufFile::Parse(std::make_shared<MemorySource>(bytes));
  EXPECT_TRUE(gguf.ok());
  const auto header = bytes.first((*gguf)->tensors().front().offset);
  const std::string checksum = profile_layout::HeaderChecksum(header);
  std::memcpy(profile_layout::ChecksumDigits(header).data(), checksum.data(), checksum.size());
  return content;
}

size_t CountRows(const Profile& profile) {
  size_t rows = 0;
  for (const Archive& archive : profile.archives) {
    rows += archive.rows().size();
  }
  return rows;
}

TEST_F(ProfileFormat, ReadsBackWhatWasWritten) {
  const Profile profile = SomeProfile();
  RecoveryNotes notes;
  const auto read = Parse(Written(profile), &notes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_TRUE(notes.empty()) << notes.front();
  EXPECT_TRUE(SameProfile(*read, profile));
  ExpectSameRows(read->archives[0], profile.archives[0]);
}

TEST_F(ProfileFormat, WritesTheSameBytesForTheSameProfile) {
  const std::string content = Written(SomeProfile());
  RecoveryNotes notes;
  const auto read = Parse(content, &notes);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(Written(*read), content);
}

TEST_F(ProfileFormat, HoldsAnEmptyProfile) {
  Profile profile;
  profile.model_fingerprint = "f";
  profile.n_layer = 1;
  profile.n_embd = 1;
  RecoveryNotes notes;
  const auto read = Parse(Written(profile), &notes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_TRUE(notes.empty());
  EXPECT_TRUE(SameProfile(*read, profile));
}

TEST_F(ProfileFormat, EveryTruncationGivesBackWhatIsInFrontOfIt) {
  const Profile profile = SomeProfile();
  const std::string content = Written(profile);
  size_t readable = 0;
  size_t rows_before = 0;
  for (size_t size = 0; size < content.size(); ++size) {
    RecoveryNotes notes;
    const auto read = Parse(content.substr(0, size), &notes);
    if (!read.ok()) {
      EXPECT_EQ(readable, 0u) << "of " << size << " bytes, though fewer could be read";
      EXPECT_EQ(read.status().code(), ErrorCode::kCorrupt) << size << ": " << read.status().message();
      continue;
    }
    ++readable;
    ASSERT_FALSE(notes.empty()) << size;
    ExpectPartOf(*read, profile);
    EXPECT_GE(CountRows(*read), rows_before) << "more of the file, more rows";
    rows_before = CountRows(*read);
  }
  EXPECT_EQ(rows_before, CountRows(profile));
  EXPECT_GT(readable, content.size() / 2) << "the header is at most half of the file";
}

TEST_F(ProfileFormat, EveryFlippedBitIsFoundAndCostsNoMoreThanItsSection) {
  const Profile profile = SomeProfile();
  const std::string content = Written(profile);
  for (size_t at = 0; at < content.size(); ++at) {
    std::string damaged = content;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    RecoveryNotes notes;
    const auto read = Parse(damaged, &notes);
    ASSERT_TRUE(read.ok()) << at << ": " << read.status().message();
    ExpectPartOf(*read, profile);
    const size_t lost = CountRows(profile) - CountRows(*read) + (profile.rankings.size() - read->rankings.size()) +
                        (profile.texts.size() - read->texts.size()) + (profile.agents.size() - read->agents.size()) +
                        (profile.means == read->means ? 0 : 1);
    ASSERT_LE(lost, 2u) << "at byte " << at;  // two rows share a bound between them
    // Only padding goes unnoticed.
    ASSERT_TRUE(!notes.empty() || (content[at] == '\0' && SameProfile(*read, profile))) << "at byte " << at;
  }
}

TEST_F(ProfileFormat, RefusesNewerVersionNamingBoth) {
  std::string content = Written(SomeProfile());
  // The value follows the key and its type.
  const size_t at = content.find("espalier.version") + std::string("espalier.version").size() + 4;
  ASSERT_EQ(content[at], 1);
  content[at] = 7;
  RecoveryNotes notes;
  const auto read = Parse(Resealed(content), &notes);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.status().code(), ErrorCode::kUnsupported);
  EXPECT_NE(read.status().message().find("version 7"), std::string::npos) << read.status().message();
  EXPECT_NE(read.status().message().find("version 1"), std::string::npos) << read.status().message();
}

TEST_F(ProfileFormat, ReadsFilesThatDoNotSayWhatTheirMeansAreOf) {
  Profile profile = SomeProfile();
  std::string content = Written(profile);
  const std::string key = "espalier.statistics_set";
  content[content.find(key) + key.size() - 1] = 'x';
  RecoveryNotes notes;
  const auto read = Parse(Resealed(content), &notes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  profile.statistics_set.clear();
  EXPECT_TRUE(SameProfile(*read, profile));
}

TEST_F(ProfileFormat, RefusesWhatIsNoProfile) {
  RecoveryNotes notes;
  for (const std::string& content : {std::string("# a text\n"), std::string(5000, 'x')}) {
    const auto read = Parse(content, &notes);
    ASSERT_FALSE(read.ok());
    EXPECT_EQ(read.status().code(), ErrorCode::kInvalidArgument) << read.status().message();
    EXPECT_NE(read.status().message().find("expected an Espalier profile"), std::string::npos);
  }
}

TEST_F(ProfileFormat, RefusesToWriteWhatItCouldNotRead) {
  const auto refused = [&](auto change) {
    Profile profile = SomeProfile();
    change(profile);
    const Status status = WriteProfile(profile, Path());
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument) << status.message();
    EXPECT_FALSE(std::filesystem::exists(Path()));
  };
  refused([](Profile& p) { p.n_layer = 0; });
  refused([](Profile& p) { p.n_layer = 4; });
  refused([](Profile& p) { p.means.values.pop_back(); });
  refused([](Profile& p) { p.rankings[0].drop_order[0] = {1}; });
  refused([](Profile& p) { p.rankings[0].drop_order.pop_back(); });
  refused([](Profile& p) { p.rankings[0].score.pop_back(); });
  refused([](Profile& p) { p.archives.emplace_back(MeasurementSet{}); });
  refused([](Profile& p) { p.rankings.resize(2000); });
}

TEST_F(ProfileFormat, HoldsTenThousandRows) {
  Profile profile = SomeProfile();
  profile.n_layer = 16;
  profile.means = {};
  profile.rankings.clear();
  profile.archives.clear();
  Archive& archive = profile.ArchiveFor(SomeSet());
  for (unsigned mask = 0; mask < 10000; ++mask) {
    ASSERT_TRUE(archive.Add(PlanOfMask(mask * 2654435761u, 16), 0, SomeLosses(static_cast<int>(mask), 3)));
  }
  RecoveryNotes notes;
  const auto read = Parse(Written(profile), &notes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_TRUE(notes.empty());
  ExpectSameRows(read->archives[0], archive);
}

}  // namespace
}  // namespace espalier
