#include "text/quantize.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <llama.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "text/libllama.h"

namespace espalier {
namespace {

struct NamedType {
  const char* name;
  llama_ftype type;
};

constexpr std::array kTypes = {
    NamedType{"F32", LLAMA_FTYPE_ALL_F32},          NamedType{"F16", LLAMA_FTYPE_MOSTLY_F16},
    NamedType{"BF16", LLAMA_FTYPE_MOSTLY_BF16},     NamedType{"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
    NamedType{"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},     NamedType{"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M},
    NamedType{"Q5_K_S", LLAMA_FTYPE_MOSTLY_Q5_K_S}, NamedType{"Q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},
    NamedType{"Q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},     NamedType{"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M},
    NamedType{"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S}, NamedType{"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},
    NamedType{"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},     NamedType{"IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL},
    NamedType{"IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS}, NamedType{"Q3_K_L", LLAMA_FTYPE_MOSTLY_Q3_K_L},
    NamedType{"Q3_K_M", LLAMA_FTYPE_MOSTLY_Q3_K_M}, NamedType{"Q3_K_S", LLAMA_FTYPE_MOSTLY_Q3_K_S},
    NamedType{"Q2_K", LLAMA_FTYPE_MOSTLY_Q2_K},
};

Result<llama_ftype> FindType(std::string_view name) {
  const auto same = [name](const NamedType& type) {
    return std::equal(name.begin(), name.end(), type.name, type.name + std::strlen(type.name), [](char a, char b) {
      return std::toupper(static_cast<unsigned char>(a)) == std::toupper(static_cast<unsigned char>(b));
    });
  };
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), same);
  if (found == kTypes.end()) {
    return InvalidArgument(
        fmt::format("quantisation type '{}': expected one of {}", name, fmt::join(QuantizationTypeNames(), ", ")));
  }
  return found->type;
}

// Deletes the file unless it was kept.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
  ~TemporaryFile() {
    if (!path_.empty()) {
      unlink(path_.c_str());
    }
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }

  // Makes the content durable, then gives it its name.
  Status RenameTo(const std::string& target) {
    const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    const bool synced = fd >= 0 && fsync(fd) == 0;
    const int sync_error = errno;
    if (fd >= 0) {
      close(fd);
    }
    if (!synced) {
      return IoError(fmt::format("{}: cannot sync: {}", path_, std::strerror(sync_error)));
    }
    if (std::rename(path_.c_str(), target.c_str()) != 0) {
      return IoError(fmt::format("{}: cannot be replaced by {}: {}", target, path_, std::strerror(errno)));
    }
    path_.clear();
    return Status::Ok();
  }

 private:
  std::string path_;
};

}  // namespace

std::vector<std::string> QuantizationTypeNames() {
  std::vector<std::string> names;
  for (const NamedType& type : kTypes) {
    names.emplace_back(type.name);
  }
  return names;
}

Status QuantizeModel(const std::string& input, const std::string& output, std::string_view type_name, int n_threads) {
  ESPALIER_ASSIGN_OR_RETURN(const llama_ftype type, FindType(type_name));
  if (access(input.c_str(), R_OK) != 0) {
    return NotFound(fmt::format("{}: cannot be read: {}", input, std::strerror(errno)));
  }
  StartLibllama();
  ClearLibllamaError();
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = type;
  params.nthread = n_threads;
  TemporaryFile temporary(fmt::format("{}.{}.tmp", output, getpid()));
  if (llama_model_quantize(input.c_str(), temporary.path().c_str(), &params) != 0) {
    return IoError(fmt::format("{}: libllama cannot write it as {} to {}: {}", input, type_name, output,
                               LibllamaErrorOr("no reason given")));
  }
  return temporary.RenameTo(output);
}

}  // namespace espalier
