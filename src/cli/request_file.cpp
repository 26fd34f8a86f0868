#include "cli/request_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/file.h"
#include "json/json_value.h"
#include "model/quote.h"

namespace espalier {
namespace {

using JsonValue = nlohmann::json;
using Target = CompressionRequest::Target;

constexpr size_t kMaxLineBytes = 64 * kKiB;
constexpr uint64_t kMaxFileBytes = 256 * kMiB;
constexpr std::array kTargets = {Target::kBytes, Target::kSizeRatio, Target::kLoss, Target::kLatency,
                                 Target::kPreference};

Status Expected(std::string_view field, std::string_view what, const JsonValue& found) {
  return InvalidArgument(fmt::format("field \"{}\": expected {}, found {}", field, what, ShowValue(found, 48)));
}

// Becomes part of a file's name.
Result<std::string> ReadId(const JsonValue& value) {
  const std::string id = value.is_string()            ? value.get<std::string>()
                         : value.is_number_unsigned() ? std::to_string(value.get<uint64_t>())
                                                      : "";
  const bool fit = !id.empty() && id.size() <= kMaxIdBytes && id.front() != '.' && id.front() != '-' &&
                   std::all_of(id.begin(), id.end(), [](char c) {
                     return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                            c == '_' || c == '-';
                   });
  if (!fit) {
    return Expected(
        "id", fmt::format("1 to {} letters, digits, '.', '_' or '-', neither '.' nor '-' first", kMaxIdBytes), value);
  }
  return id;
}

Result<double> ReadTarget(Target target, const JsonValue& value) {
  const char* name = TargetName(target);
  if (target == Target::kPreference) {
    const bool pair = value.is_array() && value.size() == 2 && value.front().is_number() && value.back().is_number();
    if (!pair) {
      return Expected(name, "[weight of size, weight of loss]", value);
    }
    return SizePreference(value.front().get<double>(), value.back().get<double>());
  }
  if (target == Target::kBytes && value.is_string()) {
    auto bytes = ParseBytes(value.get<std::string>());
    if (!bytes.ok()) {
      return InvalidArgument(fmt::format("field \"{}\": {}", name, bytes.status().message()));
    }
    return static_cast<double>(*bytes);
  }
  const bool right = target == Target::kBytes ? value.is_number_unsigned() : value.is_number();
  if (!right) {
    return Expected(name, target == Target::kBytes ? "a whole number of bytes, or a text as \"20MiB\"" : "a number",
                    value);
  }
  return value.get<double>();
}

}  // namespace

Result<double> SizePreference(double size, double loss) {
  constexpr double kRounding = 1e-6;
  if (!(size >= 0 && loss >= 0 && std::abs(size + loss - 1) <= kRounding)) {
    return InvalidArgument(fmt::format(
        "field \"preference\": expected two weights from 0 up that sum up to 1, found [{}, {}]", size, loss));
  }
  return size / (size + loss);
}

Status CheckRequest(const CompressionRequest& request) {
  const double value = request.value;
  const char* expected = nullptr;
  switch (request.target) {
    case Target::kBytes:
      expected = value >= 1 && value <= 0x1p53 ? nullptr : "1 to 2^53 bytes";
      break;
    case Target::kSizeRatio:
      expected = value > 0 && value <= 1 ? nullptr : "a share above 0 and at most 1";
      break;
    case Target::kLoss:
      expected = value >= 0 && std::isfinite(value) ? nullptr : "nats per token from 0 up";
      break;
    case Target::kLatency:
      expected = value > 0 && std::isfinite(value) ? nullptr : "milliseconds above 0";
      break;
    case Target::kPreference:
      expected = value >= 0 && value <= 1 ? nullptr : "a weight from 0 to 1";
      break;
  }
  return expected == nullptr ? Status::Ok()
                             : InvalidArgument(fmt::format("field \"{}\": expected {}, found {}",
                                                           TargetName(request.target), expected, value));
}

Result<NamedRequest> ParseRequestLine(std::string_view line, std::string* id) {
  ESPALIER_ASSIGN_OR_RETURN(const JsonValue object, ParseObjectLine(line, kMaxLineBytes));
  NamedRequest named;
  if (const auto given = object.find("id"); given != object.end()) {
    ESPALIER_ASSIGN_OR_RETURN(named.id, ReadId(*given));
    if (id != nullptr) {
      *id = named.id;
    }
  }
  const char* target = nullptr;
  for (const auto& member : object.items()) {
    const std::string& key = member.key();
    const JsonValue& value = member.value();
    const auto found =
        std::find_if(kTargets.begin(), kTargets.end(), [&key](Target t) { return key == TargetName(t); });
    if (found != kTargets.end()) {
      if (target != nullptr) {
        return InvalidArgument(
            fmt::format("fields \"{}\" and \"{}\": expected one target, found both", target, TargetName(*found)));
      }
      target = TargetName(*found);
      named.request.target = *found;
      ESPALIER_ASSIGN_OR_RETURN(named.request.value, ReadTarget(*found, value));
    } else if (key == "workload") {
      if (!value.is_string()) {
        return Expected(key, "a text as \"8x512\"", value);
      }
      auto workload = Workload::Parse(value.get<std::string>());
      if (!workload.ok()) {
        return InvalidArgument(fmt::format("field \"workload\": {}", workload.status().message()));
      }
      named.request.workload = std::move(*workload);
    } else if (key != "id") {
      return InvalidArgument(
          fmt::format("field \"{}\" is unknown; there are: id, workload, max_bytes, size_ratio, max_loss, "
                      "max_latency_ms, preference",
                      Printable(key, 48)));
    }
  }
  if (target == nullptr) {
    return InvalidArgument(
        "expected one of the fields \"max_bytes\", \"size_ratio\", \"max_loss\", \"max_latency_ms\", \"preference\", "
        "found none");
  }
  ESPALIER_RETURN_IF_ERROR(CheckRequest(named.request));
  return named;
}

Result<std::vector<RequestLine>> ParseRequestFile(std::string_view text, const std::string& path) {
  std::vector<RequestLine> lines;
  std::set<std::string> ids;
  for (int64_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      continue;
    }
    const std::string place = fmt::format("{}, line {}", Quote(path), number);
    const std::string unnamed = fmt::format("line-{}", number);
    std::string id = unnamed;
    auto parsed = ParseRequestLine(line, &id);
    Status status = parsed.status();
    if (status.ok() && !ids.insert(id).second) {
      status =
          InvalidArgument(fmt::format("field \"id\": expected another one for each request, found '{}' again", id));
    }
    if (status.ok()) {
      lines.push_back({number, std::move(id), std::move(parsed->request)});
    } else {
      lines.push_back(
          {number, id,
           Status(status.code(),
                  fmt::format("{}{}: {}", place, id == unnamed ? "" : fmt::format(" ({})", id), status.message()))});
    }
  }
  if (lines.empty()) {
    return InvalidArgument(fmt::format("request file {}: no requests in it", Quote(path)));
  }
  return lines;
}

Result<std::vector<RequestLine>> ReadRequestFile(const std::string& path) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kMaxFileBytes));
  return ParseRequestFile(text, path);
}

}  // namespace espalier
