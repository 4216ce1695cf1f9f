# %% [markdown] name="title"
# # Lab 15: One network, three segmentation tasks
#
# A street contains things, which can be counted, and stuff, which cannot. A panoptic segmentation labels both without
# contradictions: each pixel belongs to at most one segment. In this lab you compute panoptic segmentations in two ways.
# First you merge the outputs of two branches by fixed rules. Then you work with **queries**: a network predicts a set
# of masks, each with a class. You write the main steps of such a network: the masks, the attention that is restricted
# to the masks, the matching in training, and the inference of a class map. At the end, your functions replace those of
# a trained Mask2Former, and you train it further.
#
# **Time**: 80 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 15](../course/15-panoptic/index.md), which you can read first or alongside this lab; the
# attention and the bipartite matching of chapter 12; and the panoptic quality of chapter 13. The mathematics is
# softmax, sigmoid and matrix products.
#
# Run the cells from top to bottom. As long as one of your functions has not passed its check, later cells use the
# library's version of it, so the notebook always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - merge instances and a class map into one panoptic map, and state how much each rule contributes;
# - compute the class probabilities and the mask of a query;
# - write attention that is restricted to a mask, and explain what happens if the mask is empty;
# - match queries with segments by comparing their masks at a few hundred points instead of all pixels;
# - compute a class map and a panoptic map from the same queries;
# - derive the targets of three tasks from one annotation.
#
# There are three segmentation tasks. **Semantic segmentation** assigns one class to each pixel, so two cars that touch
# are not separated. **Instance segmentation** predicts one mask per thing and ignores stuff. **Panoptic segmentation**
# assigns each pixel to at most one segment, and each thing is a segment of its own. The figure shows the ground truth
# of all three tasks for one street. Black pixels have no label in this task. In all three maps, a thin line around
# each thing is black (void), because the annotation does not specify which segment the pixels at its edge belong to.

# %% name="picture" role="show"
from segedu.datasets.street import CLASSES, THINGS, draw_street
from segedu.viz import palette, show

F, SIZE = torch.nn.functional, (64, 96)
STUFF = np.array([[128, 64, 128], [244, 190, 210], [70, 130, 180], [150, 140, 130], [107, 142, 35], [190, 215, 235]])
BRIGHT = np.concatenate([palette(7), palette(14)[7:], palette(21)[14:]])  # colours of things


def street(*seed):
    """A synthetic street: image, class map, masks and labels of its things, panoptic map and segments."""
    sample = draw_street(seed, SIZE)
    return {key: v.as_subclass(torch.Tensor) if torch.is_tensor(v) else v for key, v in sample.items()}


def paint(seg, segments):
    """(H, W, 3): stuff in the colour of its class, each thing in its own colour, black where there is no segment."""
    seg, things = np.asarray(seg), iter(BRIGHT)
    picture = np.zeros((*seg.shape, 3))
    for segment in segments:
        colour = next(things, BRIGHT[0]) if segment["isthing"] else STUFF[segment["category_id"]] / 255
        picture[seg == segment["id"]] = colour
    return picture


def panels(pictures, columns, width=3.2):
    """Show pictures (H, W, 3) or (H, W) in a grid, each with its title."""
    rows = -(-len(pictures) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(width * columns, width * 0.76 * rows), layout="constrained")
    for ax, (title, picture) in zip(np.ravel(axes), pictures):
        ax.imshow(picture, interpolation="nearest", vmin=0, cmap="magma")
        ax.set(title=title, xticks=[], yticks=[])
    return fig


scene = street(15, 62)
seg, segments = scene["panoptic_seg"], scene["segments_info"]
things = [segment for segment in segments if segment["isthing"]]
classes = np.concatenate([STUFF / 255, palette(4), np.zeros((246, 3))])[scene["semantic"].numpy()]
tasks = [("semantic", classes), ("instance", paint(seg, things)), ("panoptic", paint(seg, segments))]
fig = panels([("image", scene["image"].permute(1, 2, 0)), *tasks], columns=2, width=3.7)
show(
    fig, alt=f"A street; its class map; its {len(things)} things; and all {len(segments)} segments in one panoptic map."
)

# %% [markdown] name="merge_panoptic_idea"
# ## 1. Merge the outputs of two branches (4 points)
#
# **Idea.** Panoptic FPN is a Mask R-CNN (chapter 14) with a second branch, which predicts a class for each pixel. Both
# branches are trained together. The loss weights its two parts:
#
# $$ L = \lambda_i (L_c + L_b + L_m) + \lambda_s L_s $$
#
# Here $L_c$, $L_b$ and $L_m$ are the losses of the instances' classes, boxes and masks, and $L_s$ is the cross-entropy
# of the pixels. The outputs of the two branches can contradict each other: instances may overlap, and the class map
# also labels the pixels that belong to instances. Fixed rules therefore merge both outputs into one map. Instances
# with a low score are dropped. The other instances take their pixels, in order of decreasing score. If too many pixels
# of an instance are already taken, the instance is considered a duplicate and dropped. Finally, each category of stuff
# takes its pixels that are left, unless there are only a few of them.
#
# **Formula.** Let $T$ be the set of pixels that are already taken, and $\tau$ the overlap threshold. Instance $i$ is
# dropped if
#
# $$ \frac{|m_i \cap T|}{|m_i|} > \tau . $$
#
# Otherwise it takes the pixels $m_i \setminus T$. The numerator counts all taken pixels, no matter which instances took
# them. The fraction is not an IoU: its denominator is the area of instance $i$ alone.
#
# **Worked example.** Let $\tau = 1/2$. Instance A has score 0.9 and 6 pixels. B has score 0.8 and 4 pixels, of which 2
# are also in A. C has score 0.7 and 4 pixels, of which 3 are in A or B. A takes its 6 pixels. Of B, 2/4 are taken,
# which is not *more* than half, so B takes its other 2 pixels. Of C, 3/4 are taken, so C is dropped, and its fourth
# pixel remains available for stuff.


# %% name="merge_panoptic" role="solution"
def merge_panoptic(masks, labels, scores, semantic, things, score_threshold, overlap_threshold, stuff_area):
    """Merge instances and a semantic map into a panoptic map, in which each pixel belongs to one segment or to none.

    1. Things, by decreasing score. Of instances with equal scores, the first one in the list comes first. An instance
       is dropped if its score is below `score_threshold`, if more than the fraction `overlap_threshold` of its pixels
       is already taken, or if none of its pixels is left. Any other instance takes its pixels that are left.
    2. Stuff, by increasing category. Each category of `semantic` that is neither a thing nor 255 ("unknown") takes its
       pixels that are left, if there are at least `stuff_area` of them.

    All other pixels get the value 0. The segments are numbered 1, 2, 3 ... in the order in which they are added.

    masks:             (N, H, W) bool. N may be 0.
    labels:            (N,) integers, the category of each instance.
    scores:            (N,) floats.
    semantic:          (H, W) integers, the category of each pixel.
    things:            the categories that are things, a list.
    score_threshold:   from 0 to 1.
    overlap_threshold: from 0 to 1.
    stuff_area:        in pixels, at least 1.

    Returns (H, W) integers, the number of each pixel's segment, and a list of one dict per segment,
    `{"id": number, "category_id": category, "isthing": True or False}`, in the order of the numbers.

    Example: four pixels. The instance takes two. One is stuff of category 1. One is a thing without an instance.
    With mask = torch.tensor([[[True, True, False, False]]]) and row = torch.tensor([[1, 3, 1, 3]])
    merge_panoptic(mask, torch.tensor([3]), torch.tensor([0.9]), row, [3], 0.5, 0.5, 1) gives the map [[1, 1, 2, 0]],
    and segments 1, of category 3, and 2, of category 1.
    """
    ### BEGIN SOLUTION: add the things by decreasing score, unless too much is taken, then the stuff; number them
    merged, made = torch.zeros(semantic.shape, dtype=torch.long), []

    def take(free, category, isthing):
        made.append({"id": len(made) + 1, "category_id": category, "isthing": isthing})
        merged[free] = len(made)

    for n in torch.sort(scores, descending=True, stable=True).indices.tolist():
        free = masks[n] & (merged == 0)
        whole, left = int(masks[n].sum()), int(free.sum())
        if scores[n] >= score_threshold and left and whole - left <= overlap_threshold * whole:
            take(free, int(labels[n]), True)
    for category in sorted(set(semantic.unique().tolist()) - {255, *things}):
        free = (semantic == category) & (merged == 0)
        if free.sum() >= stuff_area:
            take(free, category, False)
    return merged, made
    ### END SOLUTION


# %% name="check_merge_panoptic" role="check"
check(merge_panoptic)

# %% [markdown] name="merge_panoptic_after"
# The next cells apply your function to imitated outputs of the two branches. These are not predictions of a network but
# corrupted ground truth: boundaries are shifted, some things are detected twice, some detections are false, and the
# class map is coarse. The first figure shows one street. The second figure shows the **panoptic quality** of chapter
# 13 (PQ) of the merged maps of 20 streets: with all three rules (score threshold, overlap threshold, minimum stuff
# area), without one of them at a time, and without all three. Before you run the cells, guess: which rule contributes
# most?

# %% name="merge_panoptic_figure" role="show"
from scipy import ndimage
from segedu.metrics.panoptic import PanopticQuality


def corrupted(scene, rng):
    """Masks, labels and scores of instances, and a class map, with errors that two branches typically make."""
    instances = []
    for mask, label in zip(scene["masks"].numpy(), scene["labels"].tolist()):
        shifted = ndimage.shift(ndimage.binary_dilation(mask), rng.integers(-1, 2, 2), order=0)
        instances.append((shifted, label, 0.65, 0.98))
        if rng.random() < 0.5:  # a duplicate: larger, and of a random class
            instances.append((ndimage.binary_dilation(mask, iterations=3), int(rng.choice(THINGS)), 0.5, 0.64))
        if rng.random() < 0.5:  # a false detection
            instances.append((ndimage.shift(mask, rng.integers(8, 30, 2), order=0), label, 0.1, 0.49))
    masks = torch.tensor(np.array([instance[0] for instance in instances]).reshape(-1, *SIZE))
    labels = torch.tensor([instance[1] for instance in instances], dtype=torch.long)
    scores = torch.tensor([rng.uniform(*instance[2:]) for instance in instances])
    semantic = scene["semantic"].numpy()
    nearest = ndimage.distance_transform_edt(semantic == 255, return_distances=False, return_indices=True)
    coarse = semantic[tuple(nearest)][1::3, 1::3].repeat(3, 0).repeat(3, 1)  # a class map at stride 3
    for y, x in rng.integers(0, 60, (8, 2)):  # islands of a random class
        coarse[y : y + 3, x : x + 5] = rng.integers(0, 6)
    full = np.pad(coarse, ((0, SIZE[0] % 3), (0, 0)), mode="edge")[: SIZE[0], : SIZE[1]]
    return masks, labels, scores, torch.from_numpy(full)


def quality(predictions, scenes):
    """PQ of predictions (map, segments): over all classes, over the classes of things, and over those of stuff."""
    metric = PanopticQuality(len(CLASSES))
    for (seg, segments), scene in zip(predictions, scenes):
        metric.update({"panoptic_seg": torch.as_tensor(seg), "segments_info": segments}, scene)
    result = metric.compute()
    return result["pq"], result["things"]["pq"], result["stuff"]["pq"]


# %% name="merge_panoptic_rules" role="show"
merge = use(merge_panoptic)
streets = [street(16, i) for i in range(20)]
outputs = [corrupted(scene, np.random.default_rng(i)) for i, scene in enumerate(streets)]
rules = {
    "all rules": (0.5, 0.5, 40),
    "no score threshold": (0.0, 0.5, 40),
    "no overlap threshold": (0.5, 1.0, 40),
    "no minimum stuff area": (0.5, 0.5, 1),
    "no rule": (0.0, 1.0, 1),
}
pq = {}
for name, rule in rules.items():
    pq[name], *_ = quality([merge(*output, list(THINGS), *rule) for output in outputs], streets)
masks, labels, scores, coarse = outputs[2]
outlines = (0.7 * streets[2]["image"].permute(1, 2, 0)).numpy()
for mask, score, colour in zip(masks.numpy(), scores, BRIGHT):
    outlines[mask ^ ndimage.binary_erosion(mask)] = colour if score >= 0.5 else (1, 1, 1)
class_map = np.concatenate([STUFF / 255, np.ones((250, 3))])[coarse.numpy()]
merged = paint(*merge(*outputs[2], list(THINGS), 0.5, 0.5, 40))
pictures = [(f"{len(scores)} instances (white: score < 0.5)", outlines), ("class map (white: things)", class_map)]
ground_truth = paint(streets[2]["panoptic_seg"], streets[2]["segments_info"])
fig = panels([*pictures, ("merged", merged), ("ground truth", ground_truth)], columns=2, width=3.7)
show(
    fig,
    alt="Outlines of overlapping instances; a coarse class map; the merged map; and the ground truth, which is similar "
    "to the merged map.",
)
fig, ax = plt.subplots(figsize=(6.5, 2.3), layout="constrained")
ax.barh(list(pq), pq.values(), color=["#0072B2", *["#8a8a8a"] * 4])
ax.bar_label(ax.containers[0], fmt=" %.3f")
ax.set(xlabel="PQ on 20 corrupted streets", xlim=(0, 1))
ax.invert_yaxis()
show(fig, alt="Bars of PQ for each set of rules: " + ", ".join(f"{name} {x:.3f}" for name, x in pq.items()) + ".")

# %% [markdown] name="query_masks_idea"
# ## 2. Compute the mask of a query (3 points)
#
# **Idea.** Panoptic FPN needs rules because its two branches make separate predictions for the same pixels.
# **MaskFormer** predicts something else: a *set* of masks, each with a class. The network has $Q$ learnt vectors, the
# **queries**. Each query attends to the image. Then two heads are applied to each query: one predicts the logits
# $\ell_q$ of $K$ classes and "no object", the other predicts an embedding $e_q$. Another part of the network, the pixel
# decoder, computes an embedding $f(y, x)$ for each location. The mask of a query contains the locations at which the
# dot product of the two embeddings is large.
#
# **Formula.**
#
# $$ p_q = \operatorname{softmax}(\ell_q) $$
#
# $$ z_q(y, x) = e_q \cdot f(y, x) $$
#
# The logits $z_q$ are first resized to the image. The mask is the sigmoid of the resized logits, $m_q = \sigma(z_q)$.
# The formula is the same for sky and for cars, that is, for stuff and for things.
#
# **Worked example.** Let there be one class, and let the class logits of the class and of "no object" be
# $(\log 3, 0)$. Then $p = 3/4$. Let the query's embedding be $(2, -1)$, and let two locations have the embeddings
# $(1, 1)$ and $(0, 3)$. Their logits are 1 and -3. Resized to four pixels, the logits are 1, 0, -2, -3, so the mask is
# 0.73, 0.50, 0.12, 0.05. If you apply the sigmoid before you resize, the second pixel gets 0.56 instead of 0.50, so
# the boundary of the mask is at a different position.


# %% name="query_masks" role="solution"
def query_masks(class_logits, mask_embed, mask_features, image_size):
    """Compute the class probabilities and the mask of each query, as MaskFormer does.

    Classes: a softmax over the K + 1 columns. The last column is "no object" and is removed after the softmax.

    Mask: each query has an embedding, and each location of the feature map has one. Their dot product is the mask logit
    at this location. The logits are resized to the image, bilinearly with align_corners=False, as by F.interpolate.
    The mask is the sigmoid of the resized logits.

    class_logits:  (Q, K + 1) floats.
    mask_embed:    (Q, D) floats, the embedding of each query.
    mask_features: (D, h, w) floats, the embedding of each location.
    image_size:    (H, W) of the image in pixels, not always a multiple of (h, w).

    Returns (Q, K) class probabilities, and (Q, H, W) mask probabilities from 0 to 1, without a threshold.

    Example: one query, one class, and two locations that are resized to four pixels.
    With embed = torch.tensor([[1.0, 2.0]]) and features = torch.tensor([[[0.0, 4.0]], [[0.0, -4.0]]])
    query_masks(torch.zeros(1, 2), embed, features, (1, 4)) is [[0.5]] and [[[0.5000, 0.2689, 0.0474, 0.0180]]].
    """
    ### BEGIN SOLUTION: apply the softmax, remove the last column; compute dot products, resize them, apply the sigmoid
    p = class_logits.softmax(dim=1)[:, :-1]
    logits = (mask_embed @ mask_features.flatten(1)).unflatten(1, mask_features.shape[1:])  # (Q, h, w)
    resized = torch.nn.functional.interpolate(logits[None], image_size, mode="bilinear", align_corners=False)
    return p, resized[0].sigmoid()
    ### END SOLUTION


# %% name="check_query_masks" role="check"
check(query_masks)

# %% [markdown] name="query_masks_after"
# The course trained a small Mask2Former on other synthetic streets. It has 20 queries with 64 channels each. The
# figure shows the masks that your function computes on a street that was not used in training, for the eleven queries
# with the highest class probabilities. How many queries predict a segment at all? Does any mask cover two things?

# %% name="query_masks_figure" role="show"
from segedu.weights import pretrained

torch.set_num_threads(1)  # for such a small network, more threads bring no speed-up
net, hooked = pretrained.load("street_mask2former"), {}
net.decoder.mask_embed.register_forward_hook(lambda module, args, output: hooked.update(embed=output[0]))
net.pixel_decoder.register_forward_hook(lambda module, args, output: hooked.update(features=output[0][0]))
image, draw = scene["image"], use(query_masks)
with torch.no_grad():
    outputs = net(image[None])  # meanwhile, the hooks store the embeddings of queries and locations
    p, masks = map(torch.as_tensor, draw(outputs["class_logits"][0], hooked["embed"], hooked["features"], SIZE))
top = p.amax(dim=1).argsort(descending=True)[:11].tolist()
pictures = [("image", image.permute(1, 2, 0))]
for q in top:
    pictures.append((f"query {q}: {CLASSES[int(p[q].argmax())]} {p[q].max():.2f}", masks[q]))
classes = [title.partition(": ")[2] for title, _ in pictures[1:]]
confident = int((p.sum(dim=1) > 0.5).sum())
print(f"{confident} of {len(p)} queries assign less than 1/2 to 'no object'; the street has {len(segments)} segments")
alt = f"A street, and the masks of the eleven queries that are most confident of a class: {', '.join(classes)}."
show(panels(pictures, columns=3, width=3), alt=alt)

# %% [markdown] name="masked_attention_idea"
# ## 3. Attend only inside the mask (4 points)
#
# **Idea.** Each query collects information from the image by cross-attention: its output is a weighted sum of the
# values of all locations, and a location whose key is similar to the query gets a large weight. In DETR, a query
# attends to all locations, and training takes hundreds of epochs until the queries attend to the right ones.
# **Mask2Former** restricts the attention: after every layer it predicts a mask for each query, and in the next layer
# the query attends *only inside this mask*. The softmax is then over these locations only.
#
# **Formula.** Resize the mask logits that the previous layer predicted for query $q$ to the feature map, and apply the
# sigmoid. $M_q$ is the set of locations where the sigmoid is at least 1/2, or the set of all locations if there is no
# such location. Let $D$ be the length of the vectors. With locations $s$, keys $k_s$ and values $v_s$, the output is
#
# $$ o_q = \sum_{s \in M_q} a_{qs} \, v_s $$
#
# $$ a_{qs} = \frac{\exp(q \cdot k_s / \sqrt D)}{\sum_{t \in M_q} \exp(q \cdot k_t / \sqrt D)} $$
#
# **Worked example.** Let $D = 1$. The query is 1, the keys are 2, 1, 0, the values are 10, 20, 30, and the mask logits
# are -4, 1, 3. The last two locations are inside the mask. The softmax of their scores, 1 and 0, is 0.73 and 0.27, so
# the output is 20 · 0.73 + 30 · 0.27 = 22.7. Without a mask, it would be 14.2.
#
# **Empty masks.** A softmax over no location is 0/0. Early in training many masks are empty. A single empty mask would
# make the loss `nan`, and after the next iteration all weights of the network would be `nan`. The *gradient* has to be
# finite too, so it does not help to replace `nan` after the softmax.


# %% name="masked_attention" role="solution"
def masked_attention(queries, keys, values, mask_logits, size):
    """Compute cross-attention as Mask2Former does: each query attends only inside the mask that it predicted so far.

    1. The mask logits are resized to the feature map, bilinearly with align_corners=False, as by F.interpolate.
    2. A location is inside the mask if the sigmoid of its resized logit is at least 1/2. No gradient flows through this
       step.
    3. If a mask contains no location, its query attends to all locations.
    4. The scores are the dot products of query and keys, divided by the root of D. The weights are a softmax of the
       scores over the locations inside the mask; a location outside has weight 0. The result is the weighted sum of
       the values.

    There is one head and no projection. The query is not added to the result.

    queries:     (Q, D) floats.
    keys:        (h * w, D) floats, the locations row by row.
    values:      (h * w, D) floats.
    mask_logits: (Q, H, W) floats, the masks that the previous layer predicted.
    size:        (h, w) of the feature map.

    Returns (Q, D) floats, with finite gradients with respect to queries, keys and values.

    Example: two locations. The mask contains the second one.
    With keys, values = torch.tensor([[9.0], [1.0]]), torch.tensor([[5.0], [7.0]])
    masked_attention(torch.ones(1, 1), keys, values, torch.tensor([[[-1.0, 1.0]]]), (1, 2)) is [[7.0]].
    """
    ### BEGIN SOLUTION: find the locations inside, or use all of them; set other scores to -inf; softmax; weighted sum
    resized = torch.nn.functional.interpolate(mask_logits[None], size, mode="bilinear", align_corners=False)[0]
    inside = resized.flatten(1) >= 0  # a sigmoid of at least 1/2
    inside |= ~inside.any(dim=1, keepdim=True)
    products = queries @ keys.T / queries.shape[1] ** 0.5  # (Q, h * w)
    return products.masked_fill(~inside, float("-inf")).softmax(dim=1) @ values
    ### END SOLUTION


# %% name="check_masked_attention" role="check"
check(masked_attention)

# %% [markdown] name="masked_attention_after"
# Which locations does a trained query attend to? If you pass the **identity matrix as the values**, your function
# returns the attention weights themselves. The figure shows the attention weights of one query whose final mask is a
# thing. Each column is one of the three layers. The first row shows the mask that the query predicted before this
# layer. The second row shows the attention weights with this mask, and the third row those without a mask. The first
# layer attends to features at stride 16, the second at stride 8, and the third at stride 4. The percentage is the sum
# of the weights on the thing. How much does the mask increase it in each layer?

# %% name="masked_attention_figure" role="show"
inputs, layers = [], net.decoder.layers
hooks = [layer.register_forward_pre_hook(lambda module, args: inputs.append(args)) for layer in layers]
with torch.no_grad():
    outputs = net(image[None])
for hook in hooks:
    hook.remove()


def head_parts(layer, states, queries, memory, positions):
    """Queries and keys of one image, for the four heads of a layer: (Q, 16) and (h * w, 16) per head."""
    attention = layer.cross_attn
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q = F.linear(states[0] + queries, weights[0], biases[0])
    k = F.linear(memory[0] + positions[0], weights[1], biases[1])
    return q.chunk(attention.num_heads, dim=1), k.chunk(attention.num_heads, dim=1)


@torch.no_grad()
def weights_of(layer, args, mask_logits, size):
    """Attention weights of all queries, averaged over the heads: (Q, h, w)."""
    identity = torch.eye(size[0] * size[1])
    heads = zip(*head_parts(layer, *args[:4]))
    weights = [torch.as_tensor(attend(q, k, identity, mask_logits, size)) for q, k in heads]
    return torch.stack(weights).mean(dim=0).unflatten(1, size)


# %% name="masked_attention_picture" role="show"
attend, sizes = use(masked_attention), [(4, 6), (8, 12), (16, 24)]
score, label = outputs["class_logits"][0].softmax(dim=1).max(dim=1)
is_thing = torch.isin(label, torch.tensor(THINGS))
area = (outputs["mask_logits"][0] > 0).sum(dim=(1, 2))
query = int((score * is_thing * area).argmax())  # a large thing
final = F.interpolate(outputs["mask_logits"], SIZE, mode="bilinear")[0, query].sigmoid()
pictures, fractions = [], []
for i, (layer, args, size) in enumerate(zip(layers, inputs, sizes)):
    previous = outputs["aux_outputs"][i]["mask_logits"][0]
    weights = [weights_of(layer, args, logits, size)[query] for logits in (previous, torch.ones_like(previous))]
    small = F.interpolate(final[None, None], size, mode="area")[0, 0] > 0.5
    fractions.append([float(weight[small].sum()) for weight in weights])
    inside, everywhere = fractions[-1]
    names = (
        f"mask before layer {i + 1}",
        f"masked: {inside:.0%} on the thing",
        f"no mask: {everywhere:.0%} on the thing",
    )
    pictures += list(zip(names, (previous[query].sigmoid(), *weights)))
ordered = [pictures[3 * layer + row] for row in range(3) for layer in range(3)]
summary = "; ".join(f"layer {i}: {a:.0%} with the mask, {b:.0%} without" for i, (a, b) in enumerate(fractions, 1))
alt = f"Masks and attention weights of a query of class {CLASSES[label[query]]}. Weight on the thing: {summary}."
show(panels(ordered, columns=3, width=3), alt=alt)

# %% [markdown] name="widget_text"
# ## From layer to layer
#
# Choose a query, and go through the layers. The widget shows the query's mask, the locations that the query may attend
# to in the next layer, the class probabilities, and the IoU of the mask with the segment that the query is finally
# matched with.
# Try to find a query whose mask moves to another object. Also find a query that finally predicts "no object": which
# locations did it attend to?

# %% name="widget" role="widget"
from segedu.teaching.widgets.queries import explorer

explorer()

# %% [markdown] name="mask_match_idea"
# ## 4. Match queries with segments (4 points)
#
# **Idea.** In training, each ground-truth segment needs one query that is trained to predict it. As in DETR (chapter
# 12), Hungarian matching finds the assignment with the lowest total cost. Here the cost compares masks instead of
# boxes. A mask of a photograph has hundreds of thousands of pixels, and all $Q \times N$ pairs of masks are compared
# after each layer. **Mask2Former** therefore compares masks only at random **points**, which are the same for all
# pairs. The paper uses 12,544 points for the matching and for the loss, and reports that training then needs a third of
# the memory.
#
# **Formula.** Let $p_q(c_n)$ be the probability that query $q$ assigns to the class of segment $n$, and let all masks
# be given at $P$ points. The cost is
#
# $$ C_{qn} = -2 \, p_q(c_n) + 5 \, \mathrm{bce}_{qn} + 5 \, \mathrm{dice}_{qn} $$
#
# Here bce is the mean binary cross-entropy over the points. With $s$ the sum over the points, $p$ the sigmoids of the
# mask logits and $y$ the ground truth,
#
# $$ \mathrm{dice} = 1 - \frac{2 s(p y) + 1}{s(p) + s(y) + 1} $$
#
# **Worked example.** There are two classes and two points, and the ground-truth mask is (1, 0) at these points. An
# undecided query has class logits 0, 0, 0 and mask logits 0, 0. Its cost is
# $-2/3 + 5 \log 2 + 5 (1 - 2/3) = 4.47$. A query that is correct with full confidence costs $-2 + 0 + 0 = -2$. A query
# with full confidence in the correct class but with the mask logits -99 and 99 costs
# $-2 + 5 \cdot 99 + 5 \cdot (1 - 1/3) = 496$.


# %% name="mask_match" role="solution"
def mask_match(class_logits, mask_logits, labels, masks):
    """Match each target with a query of its own so that the sum of the costs is least, as Mask2Former does.

    The masks are compared at P points, which are the same for all pairs. The cost of query q and target n is

        cost(q, n) = -2 p_q(label of n) + 5 bce(q, n) + 5 dice(q, n)

    - p_q: a softmax over the K + 1 columns of the query. The last column is "no object";
    - bce: the binary cross-entropy of the mask logits with the target's mask, averaged over the points;
    - dice: 1 - (2 s(p y) + 1) / (s(p) + s(y) + 1), where p is the sigmoid of the mask logits, y is 1 inside the
      target's mask and 0 outside, and s is the sum over the points.

    A query without a target adds no cost, whatever it predicts. The logits may require gradients, but the matching is
    computed without gradients. scipy.optimize.linear_sum_assignment(cost) finds the pairs with the least sum.

    class_logits: (Q, K + 1) floats.
    mask_logits:  (Q, P) floats, at the points.
    labels:       (N,) integers from 0 to K - 1. N is at most Q, and may be 0.
    masks:        (N, P) bool, at the points.

    Returns the cost, (Q, N) floats, and (N,) integers: the query that each target is matched with.

    Example: one of two points is inside the mask. Both queries are very confident, but only the second one is right.
    With pixels, mask = torch.tensor([[-99.0, 99.0], [99.0, -99.0]]), torch.tensor([[True, False]])
    mask_match(torch.tensor([[99.0, 0.0], [99.0, 0.0]]), pixels, torch.tensor([0]), mask)
    is [[496.3333], [-2.0]] and [1].
    """
    ### BEGIN SOLUTION: compute the three terms for all pairs, match with scipy, order the queries by target
    from scipy.optimize import linear_sum_assignment

    z, y = mask_logits.detach(), masks.to(mask_logits.dtype)
    likely = class_logits.detach().softmax(dim=1)[:, labels]  # (Q, N)
    softplus, s = torch.nn.functional.softplus, z.sigmoid()
    bce = (softplus(-z) @ y.T + softplus(z) @ (1 - y).T) / z.shape[1]
    overlap = (2 * s @ y.T + 1) / (s.sum(dim=1)[:, None] + y.sum(dim=1) + 1)
    cost = -2 * likely + 5 * bce + 5 * (1 - overlap)
    _, queries = linear_sum_assignment(cost.T)
    return cost, torch.from_numpy(queries)
    ### END SOLUTION


# %% name="check_mask_match" role="check"
check(mask_match)

# %% [markdown] name="mask_match_after"
# The upper panel shows the costs for the trained network on the street of the first figure, at 256 points. Circles mark
# your matching. The lower panel shows how many points are needed: the fraction of the segments of 10 other streets that
# are matched with the same query at these points as at all pixels. One curve is for the trained network, the other for
# a network with random weights. Which of the two networks needs more points, and why?

# %% name="mask_match_points" role="show"
from segedu.weights.own.street_mask2former import street_mask2former

match = use(mask_match)


def targets_of(scene):
    """Labels and masks of all segments."""
    segments = scene["segments_info"]
    masks = [scene["panoptic_seg"] == segment["id"] for segment in segments]
    return torch.tensor([segment["category_id"] for segment in segments]), torch.stack(masks)


@torch.no_grad()
def matched(net, scene, num_pixels, rng):
    """Cost and matching at random pixels."""
    outputs, (labels, masks) = net(scene["image"][None]), targets_of(scene)
    pixels = torch.from_numpy(rng.choice(SIZE[0] * SIZE[1], num_pixels, replace=False))
    logits = F.interpolate(outputs["mask_logits"], SIZE, mode="bilinear")[0].flatten(1)[:, pixels]
    return map(torch.as_tensor, match(outputs["class_logits"][0], logits, labels, masks.flatten(1)[:, pixels]))


torch.manual_seed(0)
nets, rng = {"trained": net, "random weights": street_mask2former().eval()}, np.random.default_rng(0)
counts, agreement = [4, 16, 64, 256, 1024], {}
for name, model in nets.items():
    at_all = [list(matched(model, scene, SIZE[0] * SIZE[1], rng))[1] for scene in streets[:10]]
    for count in counts:
        at_some = [list(matched(model, scene, count, rng))[1] for scene in streets[:10]]
        equal = [int((a == b).sum()) for a, b in zip(at_some, at_all)]
        agreement.setdefault(name, []).append(sum(equal) / sum(map(len, at_all)))

# %% name="mask_match_figure" role="show"
cost, queries = matched(net, scene, 256, rng)
fig, (ax, below) = plt.subplots(2, 1, figsize=(7.4, 9.4), layout="constrained", height_ratios=[2.2, 1])
ax.imshow(cost.clamp(max=15), cmap="cividis", aspect="auto")
for (q, n), value in np.ndenumerate(cost.numpy()):
    ax.text(n, q, f"{value:.0f}", ha="center", va="center", fontsize=9, color="w" if value < 8 else "k")
ax.plot(range(len(queries)), queries, "o", ms=17, mfc="none", mec="#D55E00", mew=2.5)
ax.set(yticks=range(len(cost)), ylabel="query", title="cost; circles: your matching")
ax.set_xticks(range(len(queries)), [CLASSES[segment["category_id"]] for segment in segments], rotation=60)
for (name, fractions), marker in zip(agreement.items(), "os"):
    below.plot(counts, fractions, marker=marker, label=name)
below.set(xscale="log", xlabel="points", ylabel="segments with the same query", ylim=(0, 1.05))
below.set_xticks(counts, counts)
below.legend()
summary = "; ".join(f"{name}: " + ", ".join(f"{x:.0%}" for x in values) for name, values in agreement.items())
alt = f"Costs of 20 queries and {len(queries)} segments; in each column one cost is low. Segments matched with the "
show(fig, alt=f"{alt}same query at 4 to 1024 points as at all pixels: {summary}.")

# %% [markdown] name="semantic_inference_idea"
# ## 5. Compute a class map from queries (3 points)
#
# **Idea.** The same queries also give a semantic segmentation. The score of a class at a pixel is a sum over all
# queries. Each query adds the probability of this class times its mask value at this pixel. There is no threshold, and
# no query is selected: a query that is undecided between car and bus adds to the scores of both.
#
# **Formula.** Let $p_q(c)$ be the softmax over $K + 1$ columns without the last column, and $m_q$ the masks. Then
#
# $$ S_c(y, x) = \sum_{q} p_q(c) \, m_q(y, x) $$
#
# The class of a pixel is the argmax over $c$. The scores of a pixel do not necessarily sum to 1.
#
# **Worked example.** Consider one pixel. Query 1 predicts road with 0.6 and car with 0.3, and its mask value is 0.9.
# Query 2 predicts car with 0.8, and its mask value is 0.5. The score of road is 0.54, and that of car is 0.27 + 0.40 =
# 0.67, so the class is car. If only the largest product of a single query counted (0.54 for road, 0.40 for car), the
# class would be road.


# %% name="semantic_inference" role="solution"
def semantic_inference(class_logits, mask_logits):
    """Combine the predictions of all queries into class scores of each pixel, as MaskFormer does.

    Query q assigns the probability p_q(c) to class c, by a softmax over its K + 1 columns. The last column is "no
    object" and is removed after the softmax. The probability that pixel (y, x) belongs to the mask of query q is
    m_q(y, x), the sigmoid of its mask logit. The score of class c at this pixel is

        the sum over all queries q of  p_q(c) m_q(y, x)

    The scores are not normalised: those of one pixel do not necessarily sum to 1.

    class_logits: (Q, K + 1) floats.
    mask_logits:  (Q, H, W) floats.

    Returns (K, H, W) floats.

    Example: one query, for which two classes and "no object" are equally likely. Its mask contains the first pixel with
    probability 1/2, and certainly not the second one.
    semantic_inference(torch.zeros(1, 3), torch.tensor([[[0.0, -100.0]]])) is [[[0.1667, 0.0]], [[0.1667, 0.0]]].
    """
    ### BEGIN SOLUTION: compute the class and the mask probabilities, and sum their products over the queries
    p = class_logits.softmax(dim=1)[:, :-1]
    return torch.tensordot(p.T, mask_logits.sigmoid(), dims=1)
    ### END SOLUTION


# %% name="check_semantic_inference" role="check"
check(semantic_inference)

# %% [markdown] name="semantic_inference_after"
# The second panel of the figure shows the class map that your function computes for the street. The third panel shows
# the margin: the score of the best class minus the score of the second best. Dark pixels have a small margin. Where are
# they?

# %% name="semantic_inference_figure" role="show"
vote = use(semantic_inference)
with torch.no_grad():
    resized = F.interpolate(outputs["mask_logits"], SIZE, mode="bilinear")[0]
    sums = torch.as_tensor(vote(outputs["class_logits"][0], resized))
COLOURS = np.concatenate([STUFF / 255, palette(4), np.zeros((246, 3))])
target, predicted = scene["semantic"], sums.argmax(dim=0)
accuracy = float((target == predicted)[target < 255].float().mean())
best, second = sums.topk(2, dim=0).values
pictures = [("image", image.permute(1, 2, 0)), (f"class map: {accuracy:.1%} correct", COLOURS[predicted.numpy()])]
pictures += [("margin of the best class", best - second), ("ground truth (black: void)", COLOURS[target.numpy()])]
show(
    panels(pictures, columns=2, width=3.7),
    alt=f"A street; the predicted class map, in which {accuracy:.1%} of the pixels are correct; the margin of the best "
    "class, which is small along edges; and the ground truth.",
)

# %% [markdown] name="task_token_idea"
# ## 6. The targets of each task (2 points)
#
# **Idea.** Mask2Former has one architecture for three tasks, but it is trained separately for each task, which gives
# three sets of weights. **OneFormer** is trained once. For each training image, a task is drawn at random, and the
# network receives the task as a text, such as "the task is panoptic". The targets of each task are derived from the
# *same* panoptic annotation.
#
# **Rules.** The targets of each task are:
#
# | task | targets |
# |---|---|
# | panoptic | each segment |
# | instance | each segment that is a thing |
# | semantic | each category, with all its segments in one mask |
#
# **Worked example.** A row of pixels has the segment numbers 0 1 1 2 3. Segments 1 and 2 are cars (category 7), and
# segment 3 is road (category 0). The panoptic task has three targets. The instance task has two, the two cars. The
# semantic task has two as well: first road with one pixel, then car with three pixels. The first pixel belongs to no
# target in any task.


# %% name="task_token" role="solution"
def task_token(panoptic_seg, segments, task):
    """Make the task text and the targets of one task from a panoptic annotation.

    OneFormer is trained for all tasks at once. A task is drawn for each image. The network reads the text "the task is
    panoptic", "the task is instance" or "the task is semantic", and it is trained on the targets of this task.

    - panoptic: each segment is a target;
    - instance: each segment that is a thing is a target;
    - semantic: each category is a target. Its mask is the union of its segments. The targets are in increasing order
      of the category.

    Segments without a pixel in the map are dropped. Pixels of value 0 belong to no segment.

    panoptic_seg: (H, W) integers, the number of each pixel's segment, or 0.
    segments:     a dict `{"id": number, "category_id": category, "isthing": True or False}` per segment. Each category
                  of stuff has at most one segment. The list may be empty.
    task:         "panoptic", "instance" or "semantic". For any other task, raise a ValueError.

    Returns the text; (N,) integers, the categories of the targets; and (N, H, W) bool, their masks. For panoptic and
    instance, the targets are in the order of `segments`.

    Example: two things of one category.
    With both = [{"id": 1, "category_id": 7, "isthing": True}, {"id": 2, "category_id": 7, "isthing": True}]
    task_token(torch.tensor([[0, 1, 2]]), both, "semantic") is "the task is semantic", [7], [[[False, True, True]]].
    """
    ### BEGIN SOLUTION: reject other tasks, drop empty segments, group the segments into targets, make the masks
    if task not in ("panoptic", "instance", "semantic"):
        raise ValueError(f"task is {task!r}, expected panoptic, instance or semantic")
    kept = [one for one in segments if (panoptic_seg == one["id"]).any() and (task != "instance" or one["isthing"])]
    groups = [(one["category_id"], [one["id"]]) for one in kept]
    if task == "semantic":
        kinds = sorted({kind for kind, _ in groups})
        groups = [(kind, [one["id"] for one in kept if one["category_id"] == kind]) for kind in kinds]
    masks = torch.zeros(len(groups), *panoptic_seg.shape, dtype=torch.bool)
    for mask, (_, numbers) in zip(masks, groups):
        mask |= torch.isin(panoptic_seg, torch.tensor(numbers))
    return f"the task is {task}", torch.tensor([kind for kind, _ in groups], dtype=torch.long), masks
    ### END SOLUTION


# %% name="check_task_token" role="check"
check(task_token)

# %% [markdown] name="task_token_after"
# The figure shows the targets of all three tasks, derived from one annotation. Compare the numbers of targets. The
# image is the same for each task, so the network cannot infer from the image which targets it should predict. This is
# why it receives the task as a text.

# %% name="task_token_figure" role="show"
ask, pictures = use(task_token), [("image", image.permute(1, 2, 0))]
for task in ("panoptic", "instance", "semantic"):
    text, labels, masks = ask(seg, segments, task)
    labels, masks = torch.as_tensor(labels).tolist(), torch.as_tensor(masks)
    rows = [{"id": n, "category_id": label, "isthing": label in THINGS} for n, label in enumerate(labels, 1)]
    numbered = (masks * torch.arange(1, len(masks) + 1)[:, None, None]).sum(dim=0)
    pictures.append((f"{text}: {len(masks)} targets", paint(numbered, rows)))
summary = "; ".join(title for title, _ in pictures[1:])
show(
    panels(pictures, columns=2, width=3.7),
    alt=f"A street and the targets of three tasks, each in one colour: {summary}.",
)

# %% [markdown] name="train_text"
# ## Your Mask2Former
#
# Now your functions become part of the network. The next cell contains its decoder. In each layer, your
# `masked_attention` is applied in each attention head, restricted to the masks that the queries predicted before this
# layer. The other steps of a layer are as in DETR: self-attention between the queries, and an MLP applied to each
# query. The weights, the backbone and the pixel decoder are those of the small trained network.
#
# The cell after the next one prints the largest differences between the outputs of this decoder and those of the
# library's network. If your attention is correct, the differences are caused by rounding only.

# %% name="net" role="train"
import time

from segedu.panoptic.mask2former.pixel_decoder import position_of


def multi_head(attention, queries, keys, values, mask_logits, size):
    """Apply your masked attention in each head of one layer, for one image: (Q, D)."""
    projected = []
    for x, weight, bias in zip(
        (queries, keys, values), attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    ):
        projected.append(F.linear(x, weight, bias).chunk(attention.num_heads, dim=1))
    return attention.out_proj(torch.cat([attend(*head, mask_logits, size) for head in zip(*projected)], dim=1))


def predict(decoder, states, features):
    """Compute class logits, embeddings and mask logits of all queries from their states (B, Q, D)."""
    states = decoder.decoder_norm(states)
    embed = decoder.mask_embed(states)
    logits = torch.einsum("bqd,bdhw->bqhw", embed, features)
    return {"class_logits": decoder.class_embed(states), "mask_embed": embed, "mask_logits": logits}


def decode(net, images):
    """The queries' predictions before the first layer and after each layer, and the embeddings of the locations."""
    decoder = net.decoder
    features, levels = net.pixel_decoder(net.backbone(images)[-4:])
    states, query_pos = decoder.query_feat.weight.expand(len(images), -1, -1), decoder.query_embed.weight
    predictions = [predict(decoder, states, features)]
    for i, layer in enumerate(decoder.layers):
        level, size = i % 3, levels[i % 3].shape[-2:]
        values = levels[level].flatten(2).mT + decoder.level_embed.weight[level]  # (B, h * w, D)
        mask_logits = predictions[-1]["mask_logits"].detach()
        per_image = zip(states + query_pos, values + position_of(levels[level]), values, mask_logits)
        attended = torch.stack([multi_head(layer.cross_attn, *args, size) for args in per_image])
        states = layer.norm1(states + attended)
        queries = states + query_pos
        states = layer.norm2(states + layer.self_attn(queries, queries, states, need_weights=False)[0])
        states = layer.norm3(states + layer.linear2(layer.linear1(states).relu()))
        predictions.append(predict(decoder, states, features))
    return predictions, features


# %% name="trainable" role="train"
from functools import partial

from segedu.teaching.exercises.lab15_universal import exercises

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
device = "cuda" if SCALE == "gpu" else "cpu"
references = {exercise.name: exercise.reference for exercise in exercises}


def trainable(mine, arguments, max_seconds=0.03):
    """Your function, on the arguments' device, if a call with its gradient is fast enough; else the library's."""

    def on_device(call, *args):
        with torch.device(arguments[0].device):
            return call(*args)

    try:
        for _ in range(2):  # the first call may be slow for other reasons
            start = time.perf_counter()
            result = on_device(mine, *arguments)
            if torch.is_tensor(result):
                result.sum().backward()
            seconds = time.perf_counter() - start
        reason = f"takes {seconds:.2f} seconds per call" if seconds > max_seconds else None
    except Exception as error:
        reason = f"fails or has no gradient here ({type(error).__name__})"
    if reason:
        print(f"(Your {mine.__name__} {reason}. It may be correct, but this training uses the library's function.)")
    return partial(on_device, references[mine.__name__] if reason else mine)


keys, mask_logits = torch.randn(384, 16, device=device, requires_grad=True), torch.randn(20, 32, 48, device=device)
attend = trainable(use(masked_attention), (keys[:20], keys, keys, mask_logits, (16, 24)))
points = torch.zeros(12, 1024, dtype=torch.bool)
arguments = torch.zeros(20, 11), torch.zeros(20, 1024), torch.zeros(12, dtype=torch.long), points
match = trainable(use(mask_match), arguments)
with torch.no_grad():
    outputs, (predictions, _) = net.to(device)(image[None].to(device)), decode(net, image[None].to(device))
apart = [float((predictions[-1][key] - outputs[key]).abs().max()) for key in ("class_logits", "mask_logits")]
print(f"largest difference from the library's network: {apart[0]:.0e} in class logits, {apart[1]:.0e} in mask logits")

# %% [markdown] name="loss_text"
# The loss is computed for the predictions before the first layer and after every layer, each time with a new matching.
# The points are random. Your `mask_match` matches queries with targets at these points, and the loss compares the
# matched masks at the same points, by cross-entropy and Dice. The class loss includes all queries; the weight of "no
# object" in it is 0.1. (The paper samples new points for the loss, most of them where the predicted mask is uncertain.
# Here the loss uses the points of the matching.)
#
# Four more of your functions are used here. `task_token` computes the targets. For inference, `query_masks` computes
# class probabilities and masks, `semantic_inference` computes the class map, and `merge_panoptic` merges the masks of
# things and the class map into one panoptic map: first the things, by decreasing score, and then the stuff.

# %% name="loss" role="train"
num_points = 1024


def at_points(maps, points):
    """Values of maps (N, h, w) at points (P, 2), given as (x, y) relative to the image, from 0 to 1: (N, P)."""
    return F.grid_sample(maps[None], 2 * points[None, None] - 1, align_corners=False)[0, :, 0]


def loss_of(predictions, targets):
    """The loss of all queries' classes and the matched queries' masks, summed over layers, averaged over images."""
    losses = []
    for layer in predictions:
        for logits, maps, (labels, masks) in zip(layer["class_logits"], layer["mask_logits"], targets):
            points = torch.rand(num_points, 2, device=maps.device)
            sampled, y = at_points(maps, points), at_points(masks.to(maps), points) > 0.5
            matching = match(logits.detach().cpu(), sampled.detach().cpu(), labels, y.cpu())
            queries = torch.as_tensor(matching[1]).to(maps.device)
            target_classes = torch.full((len(logits),), len(CLASSES), device=maps.device)  # no object
            target_classes[queries] = labels.to(maps.device)
            class_loss = F.cross_entropy(logits, target_classes, class_weights.to(maps))
            matched_logits, y = sampled[queries], y.to(maps)
            entropy = F.binary_cross_entropy_with_logits(matched_logits, y, reduction="none").mean(dim=1)
            p = matched_logits.sigmoid()
            intersection, sum_of_areas = (p * y).sum(dim=1), p.sum(dim=1) + y.sum(dim=1)
            mask_loss = (entropy + 1 - (2 * intersection + 1) / (sum_of_areas + 1)).sum() / max(1, len(labels))
            losses.append(2 * class_loss + 5 * mask_loss)
    return torch.stack(losses).sum() / len(targets)


class_weights = torch.ones(len(CLASSES) + 1)
class_weights[-1] = 0.1

# %% name="read" role="train"
from segedu.ops.masks import connected_components
from tqdm.auto import tqdm


@torch.no_grad()
def read(net, scene):
    """Predict the panoptic map and the segments of a street, and its class map, with your functions."""
    predictions, features = decode(net, scene["image"][None].to(device))
    last = {key: value[0].cpu() for key, value in predictions[-1].items()}
    p, masks = map(torch.as_tensor, draw(last["class_logits"], last["mask_embed"], features[0].cpu(), SIZE))
    scores, labels = p.max(dim=1)
    class_map = torch.as_tensor(vote(last["class_logits"], masks.logit())).argmax(dim=0)
    is_thing = torch.isin(labels, torch.tensor(THINGS))
    things = masks[is_thing] > 0.5, labels[is_thing], scores[is_thing]
    return merge(*things, class_map, list(THINGS), 0.5, 0.5, 16), class_map


def from_components(class_map):
    """A panoptic map without queries: each connected component of a thing class is a thing."""
    components = []
    for label in THINGS:
        numbered, count = connected_components(class_map == label)
        components += [(numbered == n, label) for n in range(1, count + 1)]
    masks = torch.stack([mask for mask, _ in components]) if components else torch.zeros(0, *SIZE, dtype=torch.bool)
    labels = torch.tensor([label for _, label in components], dtype=torch.long)
    return merge(masks, labels, torch.ones(len(components)), class_map, list(THINGS), 0.5, 0.5, 16)


def measure(net):
    """PQ (all, things, stuff) on the new streets, by queries and by connected components of the class map."""
    results = [read(net, scene) for scene in tqdm(new_streets, "predict", leave=False)]
    by_components = [from_components(class_map) for _, class_map in results]
    return quality([panoptic for panoptic, _ in results], new_streets), quality(by_components, new_streets)


# %% [markdown] name="scale_text"
# On a CPU, the trained network is trained for 20 more iterations with *your* matching and *your* attention. If both
# are correct, the PQ hardly changes, because 20 iterations are few: the network was trained for 4,000 iterations, which
# took 18 minutes on one core. Training from random queries would take too long for this lab, because it takes many
# iterations until each query has specialised.
#
# On a GPU, the cell runs a whole training. It starts from random queries and a backbone that was pretrained on
# synthetic streets.

# %% name="train" role="train"
from segedu.weights.own.street_mask2former import start_from_street_vgg

scales = {"cpu": (20, 8, 160, 64, 4e-5), "gpu": (2000, 16, 4096, 64, 1e-3)}
steps, batch, length, new, rate = scales[SCALE]
new_streets = [street(15_000, i) for i in tqdm(range(new), "render new", leave=False)]
train_streets = [street(15_001, i) for i in tqdm(range(length), "render", leave=False)]
before = measure(net)

torch.manual_seed(0)
mine = street_mask2former()
if SCALE == "gpu":
    start_from_street_vgg(mine.backbone)
    mine.train()
else:
    mine.load_state_dict(net.state_dict())
    mine.eval()  # keep the statistics of the normalisation layers
mine.to(device)
optimizer = torch.optim.AdamW(mine.parameters(), lr=rate, weight_decay=1e-4)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
picks = torch.randint(length, (steps, batch), generator=torch.Generator().manual_seed(0))
bar = tqdm(picks, "train", steps)
for pick in bar:
    scenes = [train_streets[i] for i in pick]
    panoptic = [ask(scene["panoptic_seg"], scene["segments_info"], "panoptic") for scene in scenes]
    targets = [(torch.as_tensor(labels).long(), torch.as_tensor(masks)) for _, labels, masks in panoptic]
    predictions, _ = decode(mine, torch.stack([scene["image"] for scene in scenes]).to(device))
    loss = loss_of(predictions, targets)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(mine.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    bar.set_postfix(loss=f"{loss.item():.2f}")

# %% name="measure" role="train"
after = measure(mine.eval())
training = "+ 20 iterations" if SCALE == "cpu" else f"{steps} iterations"
rows = {
    "components": before[1],
    "queries": before[0],
    f"queries, {training}": after[0],
}
masked = attend


def attend(q, k, v, mask_logits, size):
    """Your attention without masks, for one measurement: all locations are inside."""
    return masked(q, k, v, torch.ones_like(mask_logits), size)


rows["queries, no masks"], _ = measure(net)
attend = masked
print(f"PQ on {new} new streets, scale {SCALE}")
print(f"{'':<24}{'all':>5}{'things':>8}{'stuff':>7}")
for name, (pq_all, pq_things, pq_stuff) in rows.items():
    print(f"{name:<24}{pq_all:>5.2f}{pq_things:>8.2f}{pq_stuff:>7.2f}")

# %% [markdown] name="train_after"
# In the first row of the table, queries do not separate the things: each connected component of a thing class is one
# thing. The class map is the same as in the second row, so the two rows hardly differ for stuff. The advantage of
# queries is in the column of things. Queries separate things that touch, and they keep a thing together if a lamp post
# or a person in front divides it into several components.
#
# In the last row, the weights of the second row are used without attention masks, so each query attends to all
# locations. The network was trained with masks, so this is not a fair comparison of two methods. It only shows how much
# this network depends on its masks.
#
# On a CPU we measured a PQ of 0.70, 0.72, 0.72 and 0.67 over all classes, in the order of the table, and of 0.53,
# 0.58, 0.58 and 0.47 for things. With learning rates from 1e-5 to 1e-4, the PQ of the third row was between 0.718 and
# 0.719, and that of the second row was 0.720. So 20 iterations hardly change the PQ. We have not measured the GPU
# scale.
#
# These results are for synthetic streets. On the photographs of COCO, DETR with its panoptic head reaches a PQ of 43.4
# with a ResNet-50 (table 5 of its paper), and the largest Mask2Former reaches 57.8 (abstract of its paper, 2022). Both
# values are in percent.

# %% name="train_figure" role="train"
pictures = []
for sample in new_streets[:3]:
    panoptic, class_map = read(mine, sample)
    components = paint(*from_components(class_map))
    pictures += [("image", sample["image"].permute(1, 2, 0)), ("connected components", components)]
    ground_truth = paint(sample["panoptic_seg"], sample["segments_info"])
    pictures += [("queries", paint(*panoptic)), ("ground truth", ground_truth)]
show(
    panels(pictures, columns=4, width=2.4),
    alt="Three new streets: the image; the connected components of the class map, in which things that touch are one "
    "segment; the panoptic map computed from queries; and the ground truth.",
)

# %% [markdown] name="failures_text"
# ## Where it fails
#
# The figure shows the three new streets with the lowest PQ. Find the cause in each of them. Does one query cover two
# things? Do two queries predict the same thing? Is a class wrong? Is a thing too small for features of stride 2? Or is
# a boundary inaccurate?

# %% name="failures" role="train"
results = [read(mine, scene)[0] for scene in new_streets]
each = [quality([panoptic], [scene])[0] for panoptic, scene in zip(results, new_streets)]
pictures, worst = [], np.argsort(each)[:3]
for i in worst:
    sample = new_streets[i]
    pictures += [(f"street {i}", sample["image"].permute(1, 2, 0)), (f"PQ {each[i]:.2f}", paint(*results[i]))]
    pictures += [("ground truth", paint(sample["panoptic_seg"], sample["segments_info"]))]
summary = ", ".join(f"{each[i]:.2f}" for i in worst)
alt = f"The three new streets with the lowest PQ, {summary}: the image, the prediction, and the ground truth."
show(panels(pictures, columns=3, width=3), alt=alt)

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the error: "In the merge of Panoptic FPN, things override stuff within their boxes."
#
# <details><summary>Answer</summary>
#
# Things override stuff only within their masks, and an instance takes only those pixels that no instance with a higher
# score has taken.
#
# </details>
#
# **2.** What happens if $\lambda_s = 0$ in the loss of Panoptic FPN? And why is it not always best to set both
# weights to 1?
#
# <details><summary>Answer</summary>
#
# With $\lambda_s = 0$, the semantic branch is never trained, so its predictions are meaningless. With both weights
# equal to 1, the two parts of the loss have different magnitudes, and both train the same pyramid. The task with the
# larger gradients may improve at the expense of the other.
#
# </details>
#
# **3.** A network has 20 queries. Can it distinguish 150 classes? Can it segment 25 people in one image?
#
# <details><summary>Answer</summary>
#
# It can distinguish 150 classes, because each query predicts probabilities of all classes. It cannot segment 25
# people, because each query predicts only one mask.
#
# </details>
#
# **4.** You write the attention without the rule for empty masks. How does the error show in training?
#
# <details><summary>Answer</summary>
#
# If a mask is empty, the softmax over no location is `nan`, and so is the loss. If you replace
# `nan` in the output with `nan_to_num`, the loss is finite, but the gradient with respect to the values is still
# `nan`. Gradient clipping divides by the norm of all gradients, which is then `nan`, so after one iteration all weights
# are `nan`.
#
# </details>
#
# **5.** No gradient flows through the attention mask. Why can the masks be trained nevertheless?
#
# <details><summary>Answer</summary>
#
# A threshold decides whether a location is inside the mask. The derivative of a threshold is zero almost everywhere, so
# the attention mask gives no useful gradient anyway. The mask logits are trained by the loss of their own layer, which
# compares them with the ground truth.
#
# </details>
#
# **6.** Find the error: "The argmax of the semantic scores and the panoptic map always agree on the class of a pixel."
#
# <details><summary>Answer</summary>
#
# They may disagree. The semantic score is a sum over all queries, while in the panoptic map each pixel belongs to one
# segment. Two queries of one class with moderate confidence can together exceed a single query of another class with
# high confidence.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 15](../course/15-panoptic/index.md) present the networks as published, their backbones, and
#   OneFormer, which receives your task text as an input.
# - How important is the matching? In a new cell write
#   `match = lambda logits, x, y, m: (None, torch.randperm(20)[: len(y)])`, which chooses queries at random. Raise the
#   learning rate in `scales` to 1e-3, and train again. For comparison, train with your matching and the same learning
#   rate. Then also set `num_points = 64`.
# - Change `read` so that it uses MaskFormer's own panoptic inference: each pixel belongs to the query with the largest
#   product of class probability and mask value. This takes about ten lines. Is it better than the merge?
# - Lab 16 is about a network that predicts no classes. It segments the object on which you click.
#
# Before you hand in this notebook, save it, and run `segedu check labs/15_universal.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
