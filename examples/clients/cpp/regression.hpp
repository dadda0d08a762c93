// What the client in client.cpp trains: y = x w, by gradient descent on the rows of a file.

#pragma once

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Failed : std::runtime_error {  // what a task that did not work out is reported with
  std::string word;
  Failed(const std::string& word, const std::string& message) : std::runtime_error(message), word(word) {}
};

class Regression {
 public:
  explicit Regression(const std::string& file) {
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream numbers(line);
      rows_.emplace_back();
      for (std::string number; std::getline(numbers, number, ',');) rows_.back().push_back(std::stod(number));
    }
    if (rows_.empty()) throw std::runtime_error("there are no rows in " + file);
  }

  size_t examples() const { return rows_.size(); }

  // Take some steps on the entry "w" of a safetensors file; gives the loss afterwards.
  double train(std::string& file, const std::string& config, const std::atomic<bool>& dropped) const {
    auto settings = parsed(config);
    double lr = number(settings, "lr", 0.1), steps = number(settings, "steps", 1);
    auto w = read(file);
    for (double step = 0; step < steps && !dropped; step++) {
      auto wrong = errors(w);
      for (size_t i = 0; i < w.size(); i++) {
        double slope = 0;
        for (size_t k = 0; k < rows_.size(); k++) slope += wrong[k] * rows_[k][i] / rows_.size();
        w[i] -= lr * slope;
      }
    }
    write(file, w);
    return loss(w);
  }

  double evaluate(const std::string& file) const { return loss(read(file)); }

 private:
  using Json = google::protobuf::Struct;

  struct Entry {
    size_t start, end;
    bool is_double;
  };

  static Json parsed(const std::string& text) {
    Json json;
    auto status = google::protobuf::util::JsonStringToMessage(text, &json);
    if (!status.ok()) throw Failed("client-failed", status.ToString());
    return json;
  }

  static double number(const Json& settings, const std::string& name, double otherwise) {
    auto found = settings.fields().find(name);
    return found == settings.fields().end() ? otherwise : found->second.number_value();
  }

  static Entry find(const std::string& file) {
    uint64_t length;  // this machine has the least significant byte first, as files do
    if (file.size() < sizeof length) throw Failed("client-failed", "the model is no safetensors file");
    std::memcpy(&length, file.data(), sizeof length);
    auto header = parsed(file.substr(8, length));
    auto about = parsed(header.fields().at("__metadata__").struct_value().fields().at("umbel").string_value());
    auto w = header.fields().find("w");
    bool cannot = w == header.fields().end();
    for (const auto& [name, role] : about.fields().at("roles").struct_value().fields()) {
      cannot |= name != "w" && (role.string_value() == "trained" || role.string_value() == "buffer");
    }
    std::string type = cannot ? "" : w->second.struct_value().fields().at("dtype").string_value();
    if (type != "F64" && type != "F32") throw Failed("client-failed", "this client trains \"w\", of F64 or F32, alone");
    auto offsets = w->second.struct_value().fields().at("data_offsets").list_value();
    double start = 8 + length, end = start + offsets.values(1).number_value();
    return {size_t(start + offsets.values(0).number_value()), size_t(end), type == "F64"};
  }

  static std::vector<double> read(const std::string& file) {
    return find(file).is_double ? copied<double>(file) : copied<float>(file);
  }

  template <class Element>
  static std::vector<double> copied(const std::string& file) {
    auto [start, end, is_double] = find(file);
    std::vector<Element> elements((end - start) / sizeof(Element));
    std::memcpy(elements.data(), file.data() + start, end - start);
    return {elements.begin(), elements.end()};
  }

  static void write(std::string& file, const std::vector<double>& w) {
    auto [start, end, is_double] = find(file);
    std::vector<float> rounded(w.begin(), w.end());
    std::memcpy(file.data() + start, is_double ? static_cast<const void*>(w.data()) : rounded.data(), end - start);
  }

  std::vector<double> errors(const std::vector<double>& w) const {
    std::vector<double> wrong;
    for (const auto& row : rows_) {
      double sum = -row.back();
      if (w.size() >= row.size()) throw Failed("client-failed", "the model is longer than a row");
      for (size_t i = 0; i < w.size(); i++) sum += w[i] * row[i];
      wrong.push_back(sum);
    }
    return wrong;
  }

  double loss(const std::vector<double>& w) const {
    double sum = 0;
    for (double error : errors(w)) sum += error * error;
    return sum / rows_.size();
  }

  std::vector<std::vector<double>> rows_;
};
