/* Turns the outputs of a detector (logits and box deltas of all anchors) into boxes. C99, no dependencies. */

#ifndef DECODE_BOXES_H
#define DECODE_BOXES_H

#ifdef __cplusplus
extern "C" {
#endif

#define BOX_LEVELS 5 /* feature maps with anchors, at 1/8 to 1/128 of the input */

/* The detector; model.json has the values under "decoding". */
typedef struct {
  int height, width;     /* of the network's input, in pixels */
  int classes;
  float anchor_scale;    /* side of a level's smallest square anchor / stride of the level */
  float score_threshold; /* scores have to be above it */
  float iou_threshold;   /* of two boxes of a class that overlap by more, the one with the higher score is kept */
  int per_level;         /* most pairs of anchor and class that a level proposes */
  int per_image;         /* most boxes of an image */
} BoxDecoding;

/* How a photograph lies in the input: in its upper left corner, with padding below and to the right. */
typedef struct {
  int height, width;      /* of the photograph in the input, in pixels */
  float y_scale, x_scale; /* that size / the size of the original photograph; 1 for boxes in pixels of the input */
} BoxPhotograph;

typedef struct {
  float x1, y1, x2, y2; /* corners, in pixels of the original photograph */
  float score;          /* in 0..1 */
  int label;            /* class, from 0 */
} Box;

typedef struct {
  float logit;
  int anchor, label;
} BoxCandidate;

/*
 * Writes the boxes of one photograph, best score first, and returns their number.
 *
 * logits: of all anchors, `classes` for each; those of an anchor begin `logit_step` floats after those of the one
 *     before it. deltas: likewise, 4 for each anchor: dx, dy, dw, dh.
 * scratch: room for BOX_LEVELS * per_level candidates.
 * boxes: room for per_image boxes.
 *
 * Per level, the pairs of anchor and class with a score above the threshold are kept, the best per_level of them.
 * They are decoded, clipped to the photograph and scaled; empty boxes are dropped. Then non-maximum suppression within
 * each class keeps at most per_image boxes. Of equal scores the finer level comes first, and then the higher logit.
 */
int decode_boxes(const BoxDecoding *detector, const BoxPhotograph *photograph, const float *logits, int logit_step,
                 const float *deltas, int delta_step, BoxCandidate *scratch, Box *boxes);

#ifdef __cplusplus
}
#endif

#endif
