// From the bytes of tokens to text that may be sent. Two things have to be held back: bytes that are not a whole
// character yet, and text that could become a stop string.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

// Thread rule: one thread at a time. Time per byte is at most proportional to the number of stop strings, memory to
// their length: neither grows with the text.
class TextStream {
 public:
  // `stops` are valid UTF-8 (they come out of JSON); empty ones are ignored.
  explicit TextStream(std::vector<std::string> stops = {});

  // Takes the bytes of the next token, and gives what may be sent now: whole characters, U+FFFD for bytes that can
  // never be one. The stop string that is completed first wins, of several at the same byte the longest; what stands
  // before it is given, the stop string itself and all after it never. How the bytes are cut into pieces changes
  // nothing.
  std::string Push(std::string_view piece);
  // The text ends here: what was held back, U+FFFD for half a character. Nothing once a stop string was found.
  // Afterwards the stream takes no more.
  std::string Flush();

  bool stopped() const { return stopping_word_ >= 0; }
  // Which stop string was found; empty if none.
  std::string stopping_word() const;

  // Code points (Python's str indices) taken so far, held back or not: before Push, the `text_offset` of its token.
  // Half a character does not count yet.
  int64_t characters() const { return characters_; }
  // Of those, given out. When all is over, tokens with offsets from here on belong to the stop string.
  int64_t characters_sent() const { return characters_sent_; }
  bool has_new_line() const { return has_new_line_; }  // in what was given out

 private:
  // One stop string and how much of it the text ends with (Knuth, Morris, Pratt).
  struct Stop {
    std::string word;
    std::vector<uint32_t> borders;  // borders[i]: length of the longest proper border of the first i + 1 bytes
    size_t matched = 0;
  };

  void TakeCharacter(std::string_view bytes);
  std::string Send(size_t bytes);

  std::vector<Stop> stops_;
  std::string incomplete_;  // at most 3 bytes: the start of a character
  std::string held_;        // whole characters, not given out yet
  int stopping_word_ = -1;
  bool flushed_ = false;
  int64_t characters_ = 0;
  int64_t characters_sent_ = 0;
  bool has_new_line_ = false;
};

}  // namespace espalier
