#include "memory/base64.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace std::string_literals;

TEST(Base64, DecodesTheVectorsOfRfc4648AndBinaryData) {
  EXPECT_EQ(*DecodeBase64(""), "");
  EXPECT_EQ(*DecodeBase64("Zg=="), "f");
  EXPECT_EQ(*DecodeBase64("Zm8="), "fo");
  EXPECT_EQ(*DecodeBase64("Zm9v"), "foo");
  EXPECT_EQ(*DecodeBase64("Zm9vYg=="), "foob");
  EXPECT_EQ(*DecodeBase64("Zm9vYmE="), "fooba");
  EXPECT_EQ(*DecodeBase64("Zm9vYmFy"), "foobar");
  EXPECT_EQ(*DecodeBase64("AP/+AA=="), "\0\xff\xfe\0"s);
}

TEST(Base64, RefusesEverythingElse) {
  for (const char* text :
       {"Z", "Zg", "Zg=", "Zg==\n", "Zm9 ", "Zm9-", "=Zg=", "Z===", "====", "Zh==", "Zm9=", "Zg==Zg=="}) {
    const auto bytes = DecodeBase64(text);
    ASSERT_FALSE(bytes.ok()) << text;
    EXPECT_EQ(bytes.status().code(), ErrorCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace espalier
