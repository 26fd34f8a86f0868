// Errors as values: every fallible function of the library returns Status or Result<T>.
//
// The library never prints, aborts or exits on bad input; the CLI prints Status::message() as one line on stderr.
// A message names the object, what was expected and what was found ("tensor 'blk.3.ffn_up.weight' of model.gguf:
// offset 4096 + 8192 bytes ends beyond the file's 10000 bytes").
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace espalier {

enum class ErrorCode {
  kInvalidArgument,  // a flag, plan, request or option is wrong: the caller can mend it
  kCorrupt,          // a file's content contradicts itself or its size
  kUnsupported,      // well-formed, but not something Espalier can do
  kNotFound,         // a file, key or device is missing
  kOutOfBudget,      // the bytes asked for exceed the memory budget; nothing was changed
  kIo,               // the operating system refused a read, write or mapping
  kAborted,          // stopped on request
  kBusy,             // no room now; the same request may succeed later
};

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(ErrorCode code, std::string message) : ok_(false), code_(code), message_(std::move(message)) {}

  static Status Ok() { return {}; }

  bool ok() const { return ok_; }
  // REQUIRES: !ok()
  ErrorCode code() const { return code_; }
  const std::string& message() const& { return message_; }
  std::string message() && { return std::move(message_); }  // `result.status().message()` may be bound to a reference

 private:
  bool ok_ = true;
  ErrorCode code_ = ErrorCode::kInvalidArgument;
  std::string message_;
};

inline Status InvalidArgument(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }
inline Status Corrupt(std::string message) { return {ErrorCode::kCorrupt, std::move(message)}; }
inline Status Unsupported(std::string message) { return {ErrorCode::kUnsupported, std::move(message)}; }
inline Status NotFound(std::string message) { return {ErrorCode::kNotFound, std::move(message)}; }
inline Status OutOfBudget(std::string message) { return {ErrorCode::kOutOfBudget, std::move(message)}; }
inline Status IoError(std::string message) { return {ErrorCode::kIo, std::move(message)}; }
inline Status Aborted(std::string message) { return {ErrorCode::kAborted, std::move(message)}; }
inline Status Busy(std::string message) { return {ErrorCode::kBusy, std::move(message)}; }

// Either a T or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit, so `return value;` works
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {  // NOLINT: implicit, likewise
    ESPALIER_CHECK(!std::get<1>(state_).ok());
  }

  bool ok() const { return state_.index() == 0; }
  Status status() const { return ok() ? Status::Ok() : std::get<1>(state_); }

  // REQUIRES: ok()
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> state_;
};

#define ESPALIER_CONCAT_(a, b) a##b
#define ESPALIER_CONCAT(a, b) ESPALIER_CONCAT_(a, b)

// Leaves the enclosing function with the error, if there is one.
#define ESPALIER_RETURN_IF_ERROR(expression)          \
  do {                                                \
    if (auto status_ = (expression); !status_.ok()) { \
      return status_;                                 \
    }                                                 \
  } while (false)

// `ESPALIER_ASSIGN_OR_RETURN(auto file, File::Open(path));`
#define ESPALIER_ASSIGN_OR_RETURN(declaration, expression) \
  auto ESPALIER_CONCAT(result_, __LINE__) = (expression);  \
  if (!ESPALIER_CONCAT(result_, __LINE__).ok()) {          \
    return ESPALIER_CONCAT(result_, __LINE__).status();    \
  }                                                        \
  declaration = std::move(ESPALIER_CONCAT(result_, __LINE__)).value()

}  // namespace espalier
