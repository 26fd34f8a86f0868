#include "server/text_stream.h"

#include <algorithm>
#include <utility>

#include "server/utf8.h"

namespace espalier {

TextStream::TextStream(std::vector<std::string> stops) {
  for (std::string& word : stops) {
    if (word.empty()) {
      continue;
    }
    Stop stop;
    stop.borders.assign(word.size(), 0);
    for (size_t i = 1; i < word.size(); ++i) {
      size_t length = stop.borders[i - 1];
      while (length > 0 && word[i] != word[length]) {
        length = stop.borders[length - 1];
      }
      stop.borders[i] = static_cast<uint32_t>(length + (word[i] == word[length]));
    }
    stop.word = std::move(word);
    stops_.push_back(std::move(stop));
  }
}

std::string TextStream::stopping_word() const {
  return stopped() ? stops_[static_cast<size_t>(stopping_word_)].word : std::string();
}

void TextStream::TakeCharacter(std::string_view bytes) {
  held_ += bytes;
  ++characters_;
  for (const char c : bytes) {
    for (Stop& stop : stops_) {
      while (stop.matched > 0 && c != stop.word[stop.matched]) {
        stop.matched = stop.borders[stop.matched - 1];
      }
      stop.matched += c == stop.word[stop.matched];
    }
  }
  // Stop strings are whole characters, so none is complete before the last byte.
  for (size_t i = 0; i < stops_.size(); ++i) {
    const Stop& stop = stops_[i];
    if (stop.matched == stop.word.size() &&
        (!stopped() || stop.word.size() > stops_[static_cast<size_t>(stopping_word_)].word.size())) {
      stopping_word_ = static_cast<int>(i);
    }
  }
}

std::string TextStream::Send(size_t bytes) {
  std::string text = held_.substr(0, bytes);
  held_.erase(0, bytes);
  characters_sent_ += static_cast<int64_t>(CountCodePoints(text));
  has_new_line_ = has_new_line_ || text.find('\n') != std::string::npos;
  return text;
}

std::string TextStream::Push(std::string_view piece) {
  if (stopped() || flushed_) {
    return "";
  }
  std::string joined;
  if (!incomplete_.empty()) {
    joined = std::exchange(incomplete_, "");
    joined += piece;
    piece = joined;
  }
  while (!piece.empty() && !stopped()) {
    const Utf8Unit unit = NextUtf8(piece);
    if (unit.kind == Utf8Unit::Kind::kIncomplete) {
      incomplete_ = piece;
      break;
    }
    TakeCharacter(unit.kind == Utf8Unit::Kind::kCharacter ? piece.substr(0, unit.bytes) : kReplacementCharacter);
    piece.remove_prefix(unit.bytes);
  }
  if (stopped()) {
    std::string text = Send(held_.size() - stops_[static_cast<size_t>(stopping_word_)].word.size());
    held_.clear();
    return text;
  }
  size_t possible = 0;
  for (const Stop& stop : stops_) {
    possible = std::max(possible, stop.matched);
  }
  return Send(held_.size() - possible);
}

std::string TextStream::Flush() {
  if (stopped() || flushed_) {
    return "";
  }
  flushed_ = true;
  if (!incomplete_.empty()) {
    incomplete_.clear();
    TakeCharacter(kReplacementCharacter);
  }
  // A stop string that ends with U+FFFD could be complete just now.
  const size_t stop_bytes = stopped() ? stops_[static_cast<size_t>(stopping_word_)].word.size() : 0;
  std::string text = Send(held_.size() - stop_bytes);
  held_.clear();
  return text;
}

}  // namespace espalier
