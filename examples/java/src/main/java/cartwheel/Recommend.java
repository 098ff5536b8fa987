package cartwheel;

import java.util.Arrays;
import java.util.Map;
import org.tensorflow.Result;
import org.tensorflow.SavedModelBundle;
import org.tensorflow.Tensor;
import org.tensorflow.ndarray.StdArrays;
import org.tensorflow.types.TBool;
import org.tensorflow.types.TFloat32;
import org.tensorflow.types.TInt32;
import org.tensorflow.types.TString;

/** Prints recommendations of an exported model, one line per item: id, tab, score. */
public final class Recommend {

  /** Arguments: directory of the export, length of the list, ids of the visitor's items, oldest first. */
  public static void main(String[] arguments) {
    if (arguments.length < 2) {
      System.err.println("give the directory of an export, the length of the list and the ids of the history");
      System.exit(2);
    }
    // an empty history is one column of padding
    String[] history = arguments.length == 2 ? new String[] {""} : Arrays.copyOfRange(arguments, 2, arguments.length);
    try (SavedModelBundle model = SavedModelBundle.load(arguments[0], "serve")) {
      print(model, history, Integer.parseInt(arguments[1]));
    }
  }

  private static void print(SavedModelBundle model, String[] history, int k) {
    try (TString visitorId = TString.vectorOf("");
        TString items = TString.tensorOf(StdArrays.ndCopyOf(new String[][] {history}));
        TInt32 length = TInt32.vectorOf(k);
        TBool excludeSeen = TBool.vectorOf(true)) {
      Map<String, Tensor> inputs =
          Map.of("visitor_id", visitorId, "history", items, "k", length, "exclude_seen", excludeSeen);
      try (Result answer = model.function("recommend").call(inputs)) {
        TString ids = (TString) answer.get("item_id").orElseThrow();
        TFloat32 scores = (TFloat32) answer.get("score").orElseThrow();
        for (long rank = 0; rank < scores.shape().get(1); rank++) {
          String id = ids.getObject(0, rank);
          if (!id.isEmpty()) { // the list is shorter than k if too few items are left
            System.out.println(id + "\t" + scores.getFloat(0, rank));
          }
        }
      }
    }
  }
}
