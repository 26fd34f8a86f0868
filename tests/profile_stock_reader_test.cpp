// A profile is a GGUF for everybody: ggml's own reader loads it.
#include <gguf.h>
#include <gtest/gtest.h>

#include "profile/profile_file.h"
#include "profile/profile_for_test.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

using ProfileGguf = ProfileFolderTest;

TEST_F(ProfileGguf, LoadsInTheStockReader) {
  const Status written = WriteProfile(SomeProfile(), Path());
  ASSERT_TRUE(written.ok()) << written.message();
  ggml_context* ggml = nullptr;
  gguf_context* gguf = gguf_init_from_file(Path().c_str(), {/*no_alloc=*/false, &ggml});
  ASSERT_NE(gguf, nullptr);
  const int64_t key = gguf_find_key(gguf, "general.architecture");
  ASSERT_GE(key, 0);
  EXPECT_STREQ(gguf_get_val_str(gguf, key), "espalier-profile");
  const ggml_tensor* loss = ggml_get_tensor(ggml, "archive.0.loss");
  ASSERT_NE(loss, nullptr);
  EXPECT_EQ(loss->type, GGML_TYPE_F64);
  EXPECT_EQ(static_cast<const double*>(loss->data)[0], SomeLosses(0, 1)[0].kl);
  const ggml_tensor* keep = ggml_get_tensor(ggml, "archive.0.keep");
  ASSERT_NE(keep, nullptr);
  EXPECT_EQ(keep->ne[0], 6);
  EXPECT_EQ(static_cast<const int16_t*>(keep->data)[6], 0) << "row 1 drops block 0";
  gguf_free(gguf);
  ggml_free(ggml);
}

}  // namespace
}  // namespace espalier
