/*
 * The rules are those of mmdetection 3.3: `AnchorGenerator` (anchors centred on the upper left corner of their cell),
 * `BaseDenseHead.predict` (threshold, best pairs of each level), `DeltaXYWHBBoxCoder`, and mmcv's `batched_nms`.
 *
 * A level keeps its best pairs in a heap with the worst one on top, so that each further pair costs one comparison
 * unless it is better. Boxes are decoded one by one in the order of their scores, until enough are kept.
 */

#include "decode_boxes.h"

#include <math.h>
#include <stdlib.h>

#define FIRST_STRIDE 8 /* of the finest level; each further level has twice the stride */
#define SIZES 3        /* anchors of one ratio: the level's size times 2^0, 2^(1/3), 2^(2/3) */
#define PER_CELL 9     /* three ratios of height to width, 1/2, 1 and 2, times SIZES */
#define MOST_LOG 4.135166556742356f /* limit of |dw| and |dh|: log(1000 / 16) */

typedef struct {
  int stride, columns; /* columns of cells */
  int first, count;    /* anchors */
} Level;

static float smaller(float a, float b) { return a < b ? a : b; }
static float larger(float a, float b) { return a > b ? a : b; }
static float limited(float a, float low, float high) { return smaller(larger(a, low), high); }

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

/* Writes the levels of the feature pyramid; every halving of the input rounds up. */
static void find_levels(int height, int width, Level *levels) {
  int i, first = 0;
  for (i = 0; i < BOX_LEVELS; i++) {
    int stride = FIRST_STRIDE << i, rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
    Level level = {stride, columns, first, rows * columns * PER_CELL};
    levels[i] = level;
    first += level.count;
  }
}

static int is_better(const BoxCandidate *a, const BoxCandidate *b) {
  if (a->logit != b->logit) return a->logit > b->logit;
  return a->anchor != b->anchor ? a->anchor < b->anchor : a->label < b->label;
}

static int best_first(const void *a, const void *b) { return is_better(a, b) ? -1 : is_better(b, a); }

/* Moves the candidate at `i` down to its place in a heap of `count`, in which the worst is on top. */
static void sink(BoxCandidate *heap, int count, int i) {
  BoxCandidate moved = heap[i];
  int child;
  for (; (child = 2 * i + 1) < count; i = child) {
    if (child + 1 < count && is_better(&heap[child], &heap[child + 1])) child++;
    if (!is_better(&moved, &heap[child])) break;
    heap[i] = heap[child];
  }
  heap[i] = moved;
}

/* Adds a candidate to the best `most`; returns their new number. Until there are `most`, they are in no order. */
static int add(BoxCandidate *heap, int count, int most, BoxCandidate candidate) {
  int i;
  if (count < most) {
    heap[count++] = candidate;
    if (count == most)
      for (i = most / 2 - 1; i >= 0; i--) sink(heap, most, i);
  } else if (is_better(&candidate, &heap[0])) {
    heap[0] = candidate;
    sink(heap, most, 0);
  }
  return count;
}

/* Writes the candidates of a level, best first; returns their number. */
static int propose(const BoxDecoding *d, const Level *level, const float *logits, int step, BoxCandidate *out) {
  /* Most logits are far below the threshold; the exact comparison is only made for those near it. */
  float low = logf(d->score_threshold / (1 - d->score_threshold)) - 1e-3f;
  int anchor, c, count = 0;
  for (anchor = level->first; anchor < level->first + level->count; anchor++) {
    const float *row = logits + (size_t)anchor * step;
    int any = 0;
    for (c = 0; c < d->classes; c++) any |= row[c] > low;
    if (!any) continue;
    for (c = 0; c < d->classes; c++) {
      BoxCandidate candidate = {row[c], anchor, c};
      if (row[c] > low && sigmoid(row[c]) > d->score_threshold) count = add(out, count, d->per_level, candidate);
    }
  }
  qsort(out, count, sizeof *out, best_first);
  return count;
}

/* Decodes the box of a candidate; returns 0 if it is empty after clipping. */
static int decode(const BoxDecoding *d, const BoxPhotograph *p, const Level *level, BoxCandidate candidate,
                  const float *delta, Box *box) {
  static const float roots[] = {0.70710678f, 1, 1.41421356f}; /* of the ratios */
  static const double octaves[SIZES] = {1, 1.2599210498948732, 1.5874010519681994};
  /* 1. The anchor, in float and in mmdetection's order of operations. */
  int index = candidate.anchor - level->first, cell = index / PER_CELL, kind = index % PER_CELL;
  float size = (float)(d->anchor_scale * octaves[kind % SIZES]), root = roots[kind / SIZES];
  float half_width = 0.5f * ((float)level->stride * (1 / root) * size);
  float half_height = 0.5f * ((float)level->stride * root * size);
  float x = (float)(cell % level->columns * level->stride), y = (float)(cell / level->columns * level->stride);
  float left = x - half_width, right = x + half_width, top = y - half_height, bottom = y + half_height;
  /* 2. The box: the centre moves in units of the anchor's sides, and the sides change by a factor. */
  float width = right - left, height = bottom - top;
  float centre_x = (left + right) * 0.5f + width * delta[0], centre_y = (top + bottom) * 0.5f + height * delta[1];
  float half_w = width * expf(limited(delta[2], -MOST_LOG, MOST_LOG)) * 0.5f;
  float half_h = height * expf(limited(delta[3], -MOST_LOG, MOST_LOG)) * 0.5f;
  /* 3. Clipped to the photograph, in pixels of the original. */
  box->x1 = limited(centre_x - half_w, 0, (float)p->width) / p->x_scale;
  box->y1 = limited(centre_y - half_h, 0, (float)p->height) / p->y_scale;
  box->x2 = limited(centre_x + half_w, 0, (float)p->width) / p->x_scale;
  box->y2 = limited(centre_y + half_h, 0, (float)p->height) / p->y_scale;
  box->score = sigmoid(candidate.logit);
  box->label = candidate.label;
  return box->x2 > box->x1 && box->y2 > box->y1;
}

/* Returns the area of the intersection of two boxes / the area of their union. */
static float overlap(const Box *a, const Box *b) {
  float width = larger(smaller(a->x2, b->x2) - larger(a->x1, b->x1), 0);
  float height = larger(smaller(a->y2, b->y2) - larger(a->y1, b->y1), 0);
  float common = width * height;
  float both = (a->x2 - a->x1) * (a->y2 - a->y1) + (b->x2 - b->x1) * (b->y2 - b->y1) - common;
  return common / larger(both, 1e-6f);
}

static int is_covered(const Box *box, const Box *kept, int count, float threshold) {
  int i;
  for (i = 0; i < count; i++)
    if (kept[i].label == box->label && overlap(&kept[i], box) > threshold) return 1;
  return 0;
}

/* Returns the level whose next candidate has the highest score, the finest of equals; -1 if all are used up. */
static int best_level(BoxCandidate *const *next, BoxCandidate *const *end) {
  int i, best = -1;
  float score, best_score = 0;
  for (i = 0; i < BOX_LEVELS; i++) {
    if (next[i] == end[i]) continue;
    score = sigmoid(next[i]->logit);
    if (best < 0 || score > best_score) {
      best = i;
      best_score = score;
    }
  }
  return best;
}

int decode_boxes(const BoxDecoding *detector, const BoxPhotograph *photograph, const float *logits, int logit_step,
                 const float *deltas, int delta_step, BoxCandidate *scratch, Box *boxes) {
  Level levels[BOX_LEVELS];
  BoxCandidate *next[BOX_LEVELS], *end[BOX_LEVELS];
  int i, kept = 0;
  find_levels(detector->height, detector->width, levels);
  for (i = 0; i < BOX_LEVELS; i++) {
    next[i] = scratch + (size_t)i * detector->per_level;
    end[i] = next[i] + propose(detector, &levels[i], logits, logit_step, next[i]);
  }
  /* The levels' sorted lists are merged on the way. */
  while (kept < detector->per_image && (i = best_level(next, end)) >= 0) {
    BoxCandidate candidate = *next[i]++;
    const float *delta = deltas + (size_t)candidate.anchor * delta_step;
    Box *box = &boxes[kept];
    if (decode(detector, photograph, &levels[i], candidate, delta, box) &&
        !is_covered(box, boxes, kept, detector->iou_threshold))
      kept++;
  }
  return kept;
}
